"""Counts per domain, added up over all processes in Redis."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from service.infra.cache.domains import Domain
from service.infra.cache.errors import CacheUnavailableError
from service.infra.cache.filler import Parts
from service.infra.cache.signals import HITS, READS

FLUSH_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class DomainStatistics:
    """Reads by how they ended, and what follows from them. `hit_rate` is 0 to 1, None without reads."""

    domain: str
    priority: str
    ttl_seconds: float
    hits: int
    misses: int
    hit_rate: float | None
    evictions: int
    errors: int
    outcomes: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """`cluster`: of all processes since Redis was last emptied, some seconds old. `instance`: of this process
    since its last report, because Redis is away."""

    scope: Literal["cluster", "instance"]
    domains: tuple[DomainStatistics, ...]


class Statistics:
    """Reports this process's counts to Redis, and reads the sum."""

    def __init__(self, parts: Parts, domains: Mapping[str, Domain]) -> None:
        self._parts = parts
        self._domains = domains

    async def report(self) -> None:
        """Add what was counted since the last report.

        Raises CacheUnavailableError: the counts are kept for the next one, and may then be counted twice.
        """
        counts = self._parts.signals.counts
        # A copy, subtracted afterwards: reads go on counting while this waits.
        taken = dict(counts)
        entries = [(f"{domain}|{name}", count) for (domain, name), count in taken.items() if count]
        if not entries:
            return
        await self._parts.guard.run(self._parts.store.add_counts, dict(entries))
        counts.subtract(taken)
        for key in [key for key, count in counts.items() if not count]:
            del counts[key]

    async def read(self) -> CacheStatistics:
        """The sum of all processes; of this one alone while Redis is away."""
        scope: Literal["cluster", "instance"] = "cluster"
        total = {f"{d}|{name}": count for (d, name), count in self._parts.signals.counts.items()}
        try:
            for name, count in (await self._parts.guard.run(self._parts.store.counts)).items():
                total[name] = total.get(name, 0) + count
        except CacheUnavailableError:
            scope = "instance"
        return CacheStatistics(scope, tuple(_of(domain, total) for domain in self._domains.values()))


def _of(domain: Domain, total: Mapping[str, int]) -> DomainStatistics:
    outcomes: dict[str, int] = {name: total.get(f"{domain.name}|{name}", 0) for name in READS}
    hits, reads = sum(outcomes[name] for name in HITS), sum(outcomes.values())
    return DomainStatistics(
        domain=domain.name,
        priority=domain.priority.name.lower(),
        ttl_seconds=domain.ttl,
        hits=hits,
        misses=reads - hits,
        hit_rate=round(hits / reads, 4) if reads else None,
        evictions=total.get(f"{domain.name}|evicted", 0),
        errors=outcomes["error"],
        outcomes=outcomes,
    )
