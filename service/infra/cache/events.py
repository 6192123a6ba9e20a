"""Invalidation by events of the bus."""

from collections.abc import Callable, Iterable
from typing import Any

from service.infra.cache.region import Region
from service.infra.event_bus import Event, EventBus


def _subject(event: Event) -> Iterable[str]:
    return (event.subject,) if event.subject else ()


def _none(_event: Event) -> Iterable[str]:
    return ()


def invalidate_on(
    bus: EventBus,
    pattern: str,
    region: Region[Any],
    *,
    keys: Callable[[Event], Iterable[str]] = _subject,
    tags: Callable[[Event], Iterable[str]] = _none,
) -> None:
    """Invalidate when an event says that something has changed; by default the entry of the event's subject.

    Events are published after the commit, in the process that made the change, and the bus may drop some when
    it overflows: for what must not be stale for a moment, or never, put `Region.writing` around the change.
    """

    async def invalidate(event: Event) -> None:
        names, groups = tuple(keys(event)), tuple(tags(event))
        if names or groups:
            await region.invalidate(*names, tags=groups)

    bus.subscribe(pattern, invalidate, name=f"cache:{region.domain.name}")
