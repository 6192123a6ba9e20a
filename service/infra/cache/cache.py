"""The cache of one process: its regions, and the tasks that keep it."""

import asyncio
import itertools
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from observability import Telemetry, get_logger
from service.infra.cache.changes import Changes
from service.infra.cache.domains import Domain, domains
from service.infra.cache.errors import CacheUnavailableError, UnknownDomainError
from service.infra.cache.filler import Parts
from service.infra.cache.flights import Flights
from service.infra.cache.guard import Guard
from service.infra.cache.interface import Moment
from service.infra.cache.names import Names, domain_tag
from service.infra.cache.pressure import CHECK_SECONDS, Pressure
from service.infra.cache.redis import RedisCacheStore
from service.infra.cache.region import Region
from service.infra.cache.signals import CacheSignals
from service.infra.cache.statistics import FLUSH_SECONDS, CacheStatistics, Statistics
from service.infra.cache.warming import Warmer, WarmUp
from service.infra.cache.write_behind import VersionedSource, WriteBehind
from service.infra.cache.write_log import RedisWriteLog
from service.infra.redis import RedisStore
from service.settings import CacheSettings
from service.tasks import end

log = get_logger(__name__)

T = TypeVar("T")
_DRAIN_SECONDS = 1.0


class Cache:
    """One per process. Connects when first used: it may be opened while Redis is down."""

    def __init__(self, redis: RedisStore, settings: CacheSettings, telemetry: Telemetry) -> None:
        self._redis = redis
        self._settings = settings
        self.domains: Mapping[str, Domain] = domains(settings)
        signals = CacheSignals(telemetry, self.domains)
        store = RedisCacheStore(redis, lease=settings.lease_seconds, hold=settings.hold_seconds)
        guard = Guard(
            store.ping,
            signals,
            timeout=settings.timeout_ms / 1000,
            faults=settings.breaker_faults,
            probe=settings.probe_seconds,
        )
        self._pressure = Pressure(
            store, guard, self.domains, signals, high=settings.memory_high, low=settings.memory_low
        )
        self._parts = Parts(
            store=store,
            guard=guard,
            changes=Changes(store, guard, self.domains, signals),
            flights=Flights(),
            signals=signals,
            instance=secrets.token_hex(8),
            numbers=itertools.count(),
            lease=settings.lease_seconds,
            entry_limit=settings.entry_limit_bytes,
            bulk_limit=settings.bulk_limit,
            full=self._pressure.full,
        )
        self._warmer = Warmer(self._parts, seconds=settings.warm_seconds)
        self._statistics = Statistics(self._parts, self.domains)
        self._regions: dict[tuple[str, Any], Region[Any]] = {}
        self._tasks: list[asyncio.Task[None]] = []

    # -- use ---------------------------------------------------------------------------------------------

    def region(self, domain: str, kind: type[T]) -> Region[T]:
        """The entries of a domain, read as `kind`. Raises UnknownDomainError."""
        if domain not in self.domains:
            raise UnknownDomainError(f"{domain!r} is none of {', '.join(self.domains)}")
        known = self._regions.get((domain, kind))
        if known is None:
            known = self._regions[domain, kind] = Region(self.domains[domain], kind, self._parts)
        return known

    def write_behind(self, domain: str, kind: type[T], source: VersionedSource[T]) -> WriteBehind[T]:
        """Write-behind over a domain; run its `run` in at least one process."""
        writes = RedisWriteLog(self._redis, domain, most=self._settings.write_behind_limit)
        region: Region[T] = self.region(domain, kind)
        return WriteBehind(region, kind, source, writes, self._parts)

    def warm_up(self, name: str, region: Region[T], load: Callable[[], Awaitable[Mapping[str, T]]]) -> None:
        """Have this loaded every CACHE_WARM_SECONDS, by one process of the cluster."""
        self._warmer.register(WarmUp(name, region.domain, region.many, load))

    async def invalidate_tags(self, *tags: str) -> None:
        """After this no entry with one of these tags, in whatever domain, is served again."""
        await self._parts.changes.tell(Moment.ONCE, Names.of("", tags=tags))

    async def clear(self, domain: str) -> None:
        """After this no entry of the domain is served again. Raises UnknownDomainError."""
        if domain not in self.domains:
            raise UnknownDomainError(f"{domain!r} is none of {', '.join(self.domains)}")
        await self._parts.changes.tell(Moment.ONCE, Names(tags=(domain_tag(domain),)))

    async def statistics(self) -> CacheStatistics:
        return await self._statistics.read()

    # -- upkeep ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to warm, to watch the memory and to report."""
        self._tasks = [
            asyncio.create_task(_every(seconds, call), name=f"cache-{name}")
            for name, seconds, call in (
                ("warming", self._settings.warm_seconds, self.warm),
                ("pressure", CHECK_SECONDS, self.relieve),
                ("statistics", FLUSH_SECONDS, self.report),
            )
        ]

    async def warm(self) -> list[str]:
        """Take a turn of warming, if it is due; gives what was warmed."""
        return await self._warmer.warm()

    async def relieve(self) -> int:
        """Evict if Redis is short of memory; gives how many entries."""
        return await self._pressure.check()

    async def report(self) -> None:
        """Add this process's counts to those of the cluster."""
        await self._statistics.report()

    async def close(self) -> None:
        """Finish loads, report, and pay what is owed if that is possible now."""
        await end(*self._tasks)
        await self._parts.flights.close(_DRAIN_SECONDS)
        with suppress(CacheUnavailableError):
            await self.report()
        await self._parts.guard.close()
        if self._parts.changes.owed:
            log.error("cache.closed_owing", changes=self._parts.changes.owed)


async def _every(seconds: float, call: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await call()
        except CacheUnavailableError as error:
            log.debug("cache.upkeep_put_off", reason=str(error))
        except Exception:
            log.exception("cache.upkeep_failed")
        await asyncio.sleep(seconds)
