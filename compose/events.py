"""What the runner tells whoever shows its progress."""

import enum
from collections.abc import Callable
from dataclasses import dataclass


class Phase(enum.StrEnum):
    """How far a component is; the ones from READY on are final."""

    LOOKING = "looking for its program"
    WAITING = "waiting"
    STOPPING = "stopping"
    STARTING = "starting"
    READY = "ready"
    KEPT = "kept"
    DONE = "done"
    STOPPED = "stopped"
    MISSING = "missing"
    SKIPPED = "skipped"
    FAILED = "failed"


GOOD = frozenset({Phase.READY, Phase.KEPT, Phase.DONE})


@dataclass(frozen=True)
class Event:
    """A step of a component, or, with no component, a remark on the stack."""

    component: str | None
    phase: Phase | None
    text: str = ""


Report = Callable[[Event], None]


def silent(_: Event) -> None:
    """Show nothing."""
