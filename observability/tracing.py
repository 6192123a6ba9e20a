"""Traces: a tracer provider, and a batch processor that can say what it lost and stop in bounded time."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

if TYPE_CHECKING:
    from observability.metrics import TelemetryCounters
    from observability.setup import TelemetryConfig

_log = logging.getLogger(__name__)
_ATTRIBUTE_LIMIT = 4_096
_HEX = b"0123456789abcdef"


class BatchProcessor(SpanProcessor):
    """Queues sampled spans and exports them from a thread of its own, untraced.

    The SDK's own processor keeps its losses to itself, ignores the timeout of a flush and may hold a
    shutdown for 30 s. Here each sampled span is counted once: exported, or dropped (queue full, export
    failed, too late). With the queue full the oldest goes, so that after an outage the newest are there.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        counters: TelemetryCounters,
        *,
        queue_size: int = 8_192,
        batch_size: int = 512,
        interval: float = 1.0,
    ) -> None:
        self._exporter = exporter
        self._counters = counters
        self._queue: deque[ReadableSpan] = deque()
        self._queue_size, self._batch_size, self._interval = queue_size, batch_size, interval
        self._accepted = self._settled = 0
        self._lock = threading.Lock()
        self._progress = threading.Condition(self._lock)
        self._wake = threading.Event()
        self._closed = self._abandon = False
        self._thread = threading.Thread(target=self._run, name="span-export", daemon=True)
        self._thread.start()

    def on_start(self, span: Span, parent_context: otel_context.Context | None = None) -> None:
        """Nothing to do before a span has ended."""

    def on_end(self, span: ReadableSpan) -> None:
        context = span.context
        if context is None or not context.trace_flags & 1:
            return
        with self._lock:
            if self._closed:
                self._counters.spans_dropped.inc()
                return
            if len(self._queue) >= self._queue_size:
                self._queue.popleft()
                self._settled += 1
                self._counters.spans_dropped.inc()
            self._queue.append(span)
            self._accepted += 1
            full = len(self._queue) >= self._batch_size
        if full and not self._wake.is_set():
            self._wake.set()

    def force_flush(self, timeout_millis: int = 5_000) -> bool:
        """Wait until the spans ended so far are exported or given up; False if that takes longer."""
        with self._progress:
            target = self._accepted
            self._wake.set()
            return self._progress.wait_for(lambda: self._settled >= target, timeout_millis / 1000)

    def shutdown(self, timeout: float = 5.0) -> None:
        """Export what is queued for at most `timeout` seconds, drop the rest. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._wake.set()
        self._thread.join(timeout)
        self._abandon = True
        # Ends a call that hangs: the exporter wakes from its backoff and its channel is closed.
        self._exporter.shutdown()
        self._thread.join(0.5)
        with self._progress:
            if self._queue:
                self._counters.spans_dropped.inc(len(self._queue))
                self._settled += len(self._queue)
                self._queue.clear()
            self._progress.notify_all()

    def _run(self) -> None:
        otel_context.attach(otel_context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        while True:
            self._wake.wait(self._interval)
            self._wake.clear()
            while batch := self._take():
                self._export(batch)
            if self._closed:
                return

    def _take(self) -> list[ReadableSpan]:
        with self._lock:
            if self._abandon:
                return []
            return [self._queue.popleft() for _ in range(min(self._batch_size, len(self._queue)))]

    def _export(self, batch: list[ReadableSpan]) -> None:
        try:
            result = self._exporter.export(batch)
        except (ValueError, TypeError) as error:
            # One span that cannot be encoded must not take 511 others with it.
            if len(batch) > 1:
                half = len(batch) // 2
                self._export(batch[:half])
                self._export(batch[half:])
                return
            _log.warning("span %r cannot be encoded: %s", batch[0].name, error)
            result = SpanExportResult.FAILURE
        except Exception:  # noqa: BLE001 - whatever an exporter raises, the thread must go on; it is counted
            _log.exception("span export failed")
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self._counters.spans_exported.inc(len(batch))
        else:
            self._counters.traces_failed.inc()
            self._counters.spans_dropped.inc(len(batch))
        with self._progress:
            self._settled += len(batch)
            self._progress.notify_all()


def resource(config: TelemetryConfig, instance: str) -> Resource:
    """Who sends: the stable resource attributes, plus what OTEL_RESOURCE_ATTRIBUTES adds."""
    return Resource.create(
        {
            "service.name": config.service_name,
            "service.namespace": config.namespace,
            "service.instance.id": instance,
            "service.version": config.version,
            "deployment.environment.name": config.environment,
            "process.pid": os.getpid(),
        }
    )


def tracer_provider(config: TelemetryConfig, instance: str) -> TracerProvider:
    """A provider that follows the caller's sampling decision, and decides by ratio where there is none."""
    return TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(config.sample_ratio)),
        resource=resource(config, instance),
        span_limits=SpanLimits(max_span_attribute_length=_ATTRIBUTE_LIMIT),
        shutdown_on_exit=False,
    )


def otlp_exporter(endpoint: str, timeout: float = 10.0) -> SpanExporter:
    """OTLP over gRPC; plain text for `http://host:port`, TLS for `https://`."""
    # Its native part writes plain text to standard error; what fails is logged by the exporter all the same.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Imported here: a service without an endpoint does not need it.
    from observability.otlp import DirectOtlpExporter  # noqa: PLC0415

    return DirectOtlpExporter(
        endpoint=endpoint, insecure=not endpoint.startswith("https://"), timeout=timeout
    )


def parse_traceparent(value: bytes, tracestate: bytes | None = None) -> SpanContext | None:
    """The caller's span from a W3C `traceparent`; None for anything malformed, which starts a new trace."""
    if len(value) < 55 or value[2] != 45 or value[35] != 45 or value[52] != 45:
        return None
    version = value[:2]
    if version == b"ff" or (
        value[55:56] != b"-" if version != b"00" and len(value) > 55 else len(value) > 55
    ):
        return None
    trace_hex, span_hex, flags_hex = value[3:35], value[36:52], value[53:55]
    if (version + trace_hex + span_hex + flags_hex).translate(None, _HEX):
        return None
    trace_id, span_id = int(trace_hex, 16), int(span_hex, 16)
    if not trace_id or not span_id:
        return None
    state = None
    if tracestate and len(tracestate) <= 512:
        state = TraceState.from_header([tracestate.decode("ascii", "ignore")])
    return SpanContext(
        trace_id, span_id, is_remote=True, trace_flags=TraceFlags(int(flags_hex, 16)), trace_state=state
    )


def traceparent(span: SpanContext) -> str:
    """`00-<trace>-<span>-<flags>`: the value of `traceparent` on the way out and of `traceresponse`."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def set_global(provider: TracerProvider) -> None:
    """Make it the provider of code that asks the API for one; the first of a process stays."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        trace.set_tracer_provider(provider)
