"""What the cache tells the operator: Prometheus series by domain, and counts that the statistics add up."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal, get_args

from observability import Telemetry

Outcome = Literal["hit", "negative", "miss", "shared", "bypass", "error"]
"""How a read ended. hit, negative: served from the cache. miss: loaded here. shared: somebody else's load was
awaited. bypass: the key was being written, or a load took too long, and the source was asked. error: the
same, because Redis was not there."""

Refusal = Literal["too_large", "unencodable", "pressure", "changed", "held", "older", "full", "unavailable"]
"""Why a value that was loaded was not kept."""

HITS: tuple[Outcome, ...] = ("hit", "negative")
READS: tuple[Outcome, ...] = get_args(Outcome)
LOAD_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class CacheSignals:
    """Counts of one process. `counts` is by (domain, name), for the statistics of the whole cluster."""

    def __init__(self, telemetry: Telemetry, domains: Iterable[str]) -> None:
        metrics = telemetry.metrics
        names = tuple(domains)
        requests = metrics.counter(
            "cache_requests", "Reads of the cache by how they ended.", ("domain", "outcome")
        )
        self._requests = {(d, o): requests.labels(d, o) for d in names for o in READS}
        load = metrics.histogram(
            "cache_load_seconds", "Time a load from the source took.", ("domain",), buckets=LOAD_BUCKETS
        )
        self._load = {d: load.labels(d) for d in names}
        self._refused = metrics.counter(
            "cache_refused", "Values that were loaded and not kept, by why.", ("domain", "reason")
        )
        evicted = metrics.counter("cache_evictions", "Entries deleted to free memory.", ("domain",))
        self._evicted = {d: evicted.labels(d) for d in names}
        corrupt = metrics.counter("cache_corrupt", "Entries that could not be read.", ("domain",))
        self._corrupt = {d: corrupt.labels(d) for d in names}
        self.faults = metrics.counter(
            "cache_faults", "Calls of Redis that failed, by kind of fault.", ("kind",)
        )
        self.open = metrics.gauge(
            "cache_breaker_open", "1 while Redis is left alone because it does not answer."
        )
        self.owed = metrics.gauge("cache_owed_changes", "Invalidations that wait for Redis to answer again.")
        self.warmed = metrics.counter("cache_warmed", "Entries stored by warming.", ("domain",))
        self.pending = metrics.gauge(
            "cache_write_behind_pending", "Writes that wait for their source.", ("domain",)
        )
        self.flushed = metrics.counter(
            "cache_write_behind", "Writes handed to their source, by how it went.", ("domain", "outcome")
        )
        self.counts: Counter[tuple[str, str]] = Counter()

    def read(self, domain: str, outcome: Outcome, times: int = 1) -> None:
        self._requests[domain, outcome].inc(times)
        self.counts[domain, outcome] += times

    def loaded(self, domain: str, seconds: float) -> None:
        self._load[domain].observe(seconds)

    def refused(self, domain: str, reason: Refusal, times: int = 1) -> None:
        self._refused.labels(domain, reason).inc(times)

    def evicted(self, domain: str, entries: int) -> None:
        self._evicted[domain].inc(entries)
        self.counts[domain, "evicted"] += entries

    def corrupt(self, domain: str, times: int = 1) -> None:
        self._corrupt[domain].inc(times)
        self.counts[domain, "corrupt"] += times
