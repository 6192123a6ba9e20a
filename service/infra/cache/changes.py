"""Invalidations, and those that Redis could not be told."""

from collections.abc import Mapping

from observability import get_logger
from service.infra.cache.domains import Domain
from service.infra.cache.errors import CacheUnavailableError
from service.infra.cache.guard import Guard
from service.infra.cache.interface import Change, Moment, Store
from service.infra.cache.names import Names, domain_tag
from service.infra.cache.signals import CacheSignals

log = get_logger(__name__)

MOST_OWED = 10_000
_CHUNK = 100


class Changes:
    """Tells the store of changes. What it cannot be told is owed, and paid before it is read again.

    So this process never serves what it knows to have changed. Another process may, from Redis' return until
    the debt is paid (a probe's pause), and if this one dies before, until the entry's TTL.
    """

    def __init__(
        self, store: Store, guard: Guard, domains: Mapping[str, Domain], signals: CacheSignals
    ) -> None:
        self._store = store
        self._guard = guard
        self._signals = signals
        self._everything = Names(tags=tuple(map(domain_tag, domains)))
        self._owed_keys: dict[tuple[str, str], None] = {}
        self._owed_tags: dict[str, None] = {}
        guard.on_recovery = self.pay

    @property
    def owed(self) -> int:
        return len(self._owed_keys) + len(self._owed_tags)

    async def tell(self, moment: Moment, names: Names, token: str = "") -> Change | None:
        """Tell a change; None if it is owed now. Never raises for Redis' sake."""
        try:
            return await self._guard.run(self._store.change, moment, names, token)
        except CacheUnavailableError as error:
            self._owe(names)
            # Whatever the fault: what cannot be invalidated must not be read.
            self._guard.trip(f"a change could not be told: {error}")
            return None

    def _owe(self, names: Names) -> None:
        self._owed_keys |= dict.fromkeys(names.keys)
        self._owed_tags |= dict.fromkeys(names.tags)
        if self.owed > MOST_OWED:
            log.error("cache.owed_everything", changes=self.owed)
            self._owed_keys.clear()
            self._owed_tags = dict.fromkeys(self._everything.tags)
        self._signals.owed.set(self.owed)

    async def pay(self) -> None:
        """Tell everything that is owed. Raises the store's faults; what was told is no longer owed."""
        while self.owed:
            keys, tags = tuple(self._owed_keys)[:_CHUNK], tuple(self._owed_tags)[:_CHUNK]
            # Taken off before they are told: what changes once more meanwhile is owed anew.
            for key in keys:
                del self._owed_keys[key]
            for tag in tags:
                del self._owed_tags[tag]
            names = Names(keys, tags)
            try:
                await self._store.change(Moment.ONCE, names, "")
            except BaseException:
                self._owe(names)
                raise
            self._signals.owed.set(self.owed)
