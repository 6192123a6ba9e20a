"""Which components a choice brings with it, and in which order they start and stop."""

from collections.abc import Iterable

from compose.model import Component, StackError


def by_name(table: Iterable[Component]) -> dict[str, Component]:
    """The components of `table` by name, in the table's order."""
    return {component.name: component for component in table}


def closure(names: Iterable[str], table: Iterable[Component]) -> tuple[Component, ...]:
    """The named components and everything they need, in the table's order.

    Raises:
        StackError: for a name that the table does not hold.
    """
    known = by_name(table)
    wanted: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in known:
            raise StackError(f"there is no component {name!r}; there are: {', '.join(known)}")
        if name not in wanted:
            wanted.add(name)
            waiting.extend(known[name].needs)
    return tuple(component for component in known.values() if component.name in wanted)


def order(table: Iterable[Component]) -> tuple[Component, ...]:
    """The components so that each one stands after all that it needs.

    Raises:
        StackError: if components need each other in a circle, or need one that is not in the table.
    """
    known = by_name(table)
    placed: dict[str, Component] = {}
    while len(placed) < len(known):
        free = [c for c in known.values() if c.name not in placed and all(n in placed for n in c.needs)]
        if not free:
            rest = ", ".join(name for name in known if name not in placed)
            raise StackError(
                f"these components need each other in a circle, or one that is not there: {rest}"
            )
        placed.update((component.name, component) for component in free)
    return tuple(placed.values())


def levels(table: Iterable[Component]) -> list[list[Component]]:
    """The components in the order of stopping: those in one list can be stopped together."""
    left = by_name(table)
    steps = []
    while left:
        relied_on = {name for c in left.values() for name in (*c.needs, *c.uses)}
        step = [c for c in left.values() if c.name not in relied_on] or list(left.values())
        steps.append(step)
        for component in step:
            del left[component.name]
    return steps
