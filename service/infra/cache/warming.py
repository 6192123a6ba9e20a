"""Fills what is asked for often, before it is asked for."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from observability import get_logger
from service.infra.cache.bulk import Bulk
from service.infra.cache.domains import Domain
from service.infra.cache.filler import Parts, Tags

log = get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class WarmUp(Generic[T]):
    """What to fill: `load` gives up to CACHE_BULK_LIMIT values by key, as reading them one by one would."""

    name: str
    domain: Domain
    many: Bulk[T]
    load: Callable[[], Awaitable[Mapping[str, T]]]
    tags: Tags[T] = ()


class Warmer:
    """Runs the registered loads, the highest priority first, in one process of the cluster per interval."""

    def __init__(self, parts: Parts, *, seconds: float) -> None:
        self._parts = parts
        # Over before the next process may begin: there is never more than one.
        self._turn = seconds * 0.9
        self._registered: list[WarmUp[Any]] = []

    def register(self, warm_up: WarmUp[Any]) -> None:
        self._registered.append(warm_up)
        self._registered.sort(key=lambda known: -known.domain.priority)

    async def warm(self) -> list[str]:
        """Take a turn if it is due; gives the names of what was warmed. Raises CacheUnavailableError."""
        if not self._registered or not await self._parts.guard.run(
            self._parts.store.once, "warming", self._turn
        ):
            return []
        warmed: list[str] = []
        try:
            async with asyncio.timeout(self._turn):
                for warm_up in self._registered:
                    warmed += [warm_up.name] if await self._one(warm_up) else []
        except TimeoutError:
            log.warning("cache.warming_cut_off", warmed=warmed, seconds=self._turn)
        return warmed

    async def _one(self, warm_up: WarmUp[Any]) -> bool:
        if self._parts.full(warm_up.domain):
            return False
        try:
            mark = await warm_up.many.mark()
            stored = await warm_up.many.set(await warm_up.load(), mark, tags=warm_up.tags)
        except TimeoutError:
            raise
        except Exception as error:  # noqa: BLE001 - a load that fails is no reason not to warm the others
            reason = f"{type(error).__name__}: {error}"
            log.warning("cache.warming_failed", warming=warm_up.name, reason=reason)
            return False
        self._parts.signals.warmed.labels(warm_up.domain.name).inc(stored)
        log.debug("cache.warmed", warming=warm_up.name, entries=stored)
        return True
