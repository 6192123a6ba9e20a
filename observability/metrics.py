"""Prometheus metrics of one process, in a registry of its own, with exemplars that name the trace."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from opentelemetry.trace import SpanContext
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

HTTP_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
JOB_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
OTHER = "_other"


def exemplar(span: SpanContext) -> dict[str, str] | None:
    """The labels of an exemplar; none for a span that is not sampled, since no trace would be found."""
    if not span.trace_flags & 1:
        return None
    return {"trace_id": format(span.trace_id, "032x"), "span_id": format(span.span_id, "016x")}


class HttpMetrics:
    """Rate, errors and duration per route template. `active` is a plain number read when scraped."""

    def __init__(self, registry: CollectorRegistry, max_routes: int = 500) -> None:
        self._duration = Histogram(
            "http_server_request_duration_seconds",
            "Time from the request's arrival to its answer's end; to the first bytes of an event stream.",
            ("http_request_method", "http_route", "http_response_status_code"),
            buckets=HTTP_BUCKETS,
            registry=registry,
        )
        self.active = 0
        Gauge("http_server_active_requests", "Requests being answered.", registry=registry).set_function(
            lambda: float(self.active)
        )
        self._children: dict[tuple[str, str, int], Histogram] = {}
        self._routes: set[str] = set()
        self._max_routes = max_routes

    def child(self, method: str, route: str, status: int) -> Histogram:
        """The series of one label set; `labels()` takes a lock each time, a dict does not."""
        key = (method, route, status)
        known = self._children.get(key)
        if known is None:
            known = self._duration.labels(method, self._fold(route), status)
            if len(self._children) < self._max_routes * 20:
                self._children[key] = known
        return known

    def _fold(self, route: str) -> str:
        if route not in self._routes:
            if len(self._routes) >= self._max_routes:
                return "/{other}"
            self._routes.add(route)
        return route


class JobSeries:
    """The series of one job name."""

    __slots__ = (
        "dead", "done", "enqueued", "failed", "freshness", "interrupted", "retried", "run", "started", "wait",
    )  # fmt: skip

    def __init__(self, job: str, counters: dict[str, Counter], histograms: dict[str, Histogram]) -> None:
        self.enqueued = counters["enqueued"].labels(job)
        self.started = counters["started"].labels(job)
        self.done = counters["done"].labels(job)
        self.failed = counters["failed"].labels(job)
        self.retried = counters["retried"].labels(job)
        self.dead = counters["dead"].labels(job)
        self.interrupted = counters["interrupted"].labels(job)
        self.wait = histograms["wait"].labels(job)
        self.run = histograms["run"].labels(job)
        self.freshness = histograms["freshness"].labels(job)


class JobMetrics:
    """Counters and histograms per job name; a message with an unknown name cannot grow them without end."""

    def __init__(self, registry: CollectorRegistry, namespace: str, max_jobs: int = 200) -> None:
        prefix = f"{namespace}_jobs"
        counters = {
            "enqueued": "Jobs handed to the queue.",
            "started": "Attempts started.",
            "done": "Jobs completed.",
            "failed": "Attempts that ended in an error.",
            "retried": "Failed attempts that will be tried again.",
            "dead": "Jobs given up.",
            "interrupted": "Attempts at jobs that another worker had and did not end.",
        }
        histograms = {
            "wait": "Time from enqueueing to the start of the attempt.",
            "run": "Time an attempt took.",
            "freshness": "Time from the business commit to the job's completion.",
        }
        # Not "job": a scrape puts its own there.
        self._counters = {
            name: Counter(f"{prefix}_{name}", text, ("job_name",), registry=registry)
            for name, text in counters.items()
        }
        self._histograms = {
            name: Histogram(
                f"{prefix}_{name}_seconds", text, ("job_name",), buckets=JOB_BUCKETS, registry=registry
            )
            for name, text in histograms.items()
        }
        self.in_flight = 0
        Gauge(f"{prefix}_in_flight", "Attempts running now.", registry=registry).set_function(
            lambda: float(self.in_flight)
        )
        self.concurrency = Gauge(f"{prefix}_concurrency", "Attempts that may run at once.", registry=registry)
        self._series: dict[str, JobSeries] = {}
        self._max_jobs = max_jobs

    def series(self, job: str) -> JobSeries:
        """The series of a job name, all of them present from zero on once asked for."""
        known = self._series.get(job)
        if known is None:
            if len(self._series) >= self._max_jobs:
                job = OTHER
            known = self._series.get(job) or JobSeries(job, self._counters, self._histograms)
            self._series[job] = known
        return known


class TelemetryCounters:
    """What telemetry says about itself."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.spans_exported = Counter(
            "telemetry_spans_exported", "Spans the collector accepted.", registry=registry
        )
        self.spans_dropped = Counter(
            "telemetry_spans_dropped",
            "Sampled spans that never reached the collector: queue full, export failed or shutdown.",
            registry=registry,
        )
        self.exports_failed = Counter(
            "telemetry_exports_failed",
            "Export calls given up after their retries.",
            ("signal",),
            registry=registry,
        )
        self.traces_failed = self.exports_failed.labels("traces")
        self.log_lines_lost = Counter(
            "telemetry_log_lines_lost", "Log lines that could not be written or encoded.", registry=registry
        )


class Metrics:
    """One process's metrics. `counter`, `gauge` and `histogram` make its own under the namespace."""

    def __init__(self, registry: CollectorRegistry, namespace: str) -> None:
        self.registry = registry
        self.namespace = namespace
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)

    @cached_property
    def http(self) -> HttpMetrics:
        return HttpMetrics(self.registry)

    @cached_property
    def jobs(self) -> JobMetrics:
        return JobMetrics(self.registry, self.namespace)

    @cached_property
    def telemetry(self) -> TelemetryCounters:
        return TelemetryCounters(self.registry)

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Counter:
        """`counter("jobs", ..., ("kind",))` is scraped as `<namespace>_jobs_total{kind}`."""
        return Counter(f"{self.namespace}_{name}", text, labels, registry=self.registry)

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(f"{self.namespace}_{name}", text, labels, registry=self.registry)

    def histogram(
        self, name: str, text: str, labels: Sequence[str] = (), buckets: Sequence[float] = HTTP_BUCKETS
    ) -> Histogram:
        return Histogram(f"{self.namespace}_{name}", text, labels, buckets=buckets, registry=self.registry)

    def exposition(self, accept_header: str | None) -> tuple[bytes, str]:
        """Body and content type of `/metrics`: OpenMetrics with exemplars if asked for, else plain."""
        encode, content_type = choose_encoder(accept_header or "")
        return encode(self.registry), content_type
