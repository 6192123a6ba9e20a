"""What Redis tells the operator."""

from collections.abc import Iterator

from prometheus_client import Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from observability import Metrics
from service.infra.redis.client import Pool

SLOW_SECONDS = 0.1
_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_MAX_COMMANDS = 100
_OTHER = "_other"


class RedisMetrics:
    """Round trips by command, those from 100 ms, faults by kind, retries."""

    def __init__(self, metrics: Metrics) -> None:
        self._seconds = metrics.histogram(
            "redis_command_seconds",
            "Time of one round trip, from sending to the whole answer or the fault.",
            ("command",),
            _BUCKETS,
        )
        self._slow = metrics.counter(
            "redis_slow_commands", "Round trips that took 100 ms or longer.", ("command",)
        )
        self._faults = metrics.counter("redis_faults", "Faults that reached the caller.", ("kind",))
        self.retries = metrics.counter("redis_retries", "Commands tried again after a connection fault.")
        self.pool_wait = metrics.histogram(
            "redis_pool_wait_seconds", "Time until a connection was free and connected.", buckets=_BUCKETS
        )
        self.resubscribed = metrics.counter(
            "redis_resubscriptions", "Subscriptions restored after their connection broke."
        )
        self._children: dict[str, Histogram] = {}

    def observe(self, command: str, seconds: float) -> None:
        child = self._children.get(command)
        if child is None:
            # Only names from the code come here; the bound keeps it so.
            label = command if len(self._children) < _MAX_COMMANDS else _OTHER
            child = self._children[command] = self._seconds.labels(label)
        child.observe(seconds)
        if seconds >= SLOW_SECONDS:
            self._slow.labels(command if len(self._children) <= _MAX_COMMANDS else _OTHER).inc()

    def fault(self, kind: str) -> None:
        self._faults.labels(kind).inc()


class RedisPoolMetrics(Collector):
    """`<namespace>_redis_pool_connections{state}` and its limit, read from the pool when scraped."""

    def __init__(self, pool: Pool, namespace: str) -> None:
        self._pool = pool
        self._name = f"{namespace}_redis_pool_connections"

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, "Connections of the Redis pool.", labels=["state"])
        family.add_metric(["used"], self._pool.used)
        family.add_metric(["idle"], self._pool.idle)
        yield family
        yield GaugeMetricFamily(
            f"{self._name}_max", "Largest number of connections.", value=self._pool.max_connections
        )
