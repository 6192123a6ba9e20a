"""Gives memory back when Redis runs short of it, the least important domains first."""

from collections.abc import Mapping

from observability import get_logger
from service.infra.cache.domains import Domain, Priority
from service.infra.cache.guard import Guard
from service.infra.cache.interface import Store
from service.infra.cache.signals import CacheSignals

log = get_logger(__name__)

CHECK_SECONDS = 10.0
_BATCH = 100


class Pressure:
    """Watches the share of `maxmemory` in use. `Priority` says what happens to whom."""

    def __init__(
        self,
        store: Store,
        guard: Guard,
        domains: Mapping[str, Domain],
        signals: CacheSignals,
        *,
        high: float,
        low: float,
    ) -> None:
        self._store = store
        self._guard = guard
        self._signals = signals
        self._high, self._low = high, low
        self._yielding = sorted(
            (domain for domain in domains.values() if domain.priority <= Priority.NORMAL),
            key=lambda domain: domain.priority,
        )
        self._short = False

    def full(self, domain: Domain) -> bool:
        """Whether the domain is not to be filled now."""
        return self._short and domain.priority <= Priority.NORMAL

    async def check(self) -> int:
        """Look, and evict if need be; gives how many entries. Raises CacheUnavailableError."""
        # Several processes may do so at once: a full server would not let them agree on one.
        if not await self._measure():
            return 0
        evicted = 0
        for domain in self._yielding:
            while self._short:
                deleted = await self._guard.run(self._store.evict, domain.name, _BATCH)
                if not deleted:
                    break
                evicted += deleted
                self._signals.evicted(domain.name, deleted)
                await self._measure()
        log.warning("cache.evicted", entries=evicted, enough=not self._short)
        return evicted

    async def _measure(self) -> bool:
        share = await self._guard.run(self._store.memory)
        if share is None or share < self._low:
            self._short = False
        elif share >= self._high:
            self._short = True
        return self._short
