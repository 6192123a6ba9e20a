"""Traces on their way out: over real OTLP gRPC, with the collector dead, hanging or slow, and at shutdown."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry
from starlette.responses import PlainTextResponse

from observability import TelemetryMiddleware
from observability.metrics import TelemetryCounters
from observability.tracing import BatchProcessor
from tests.unit.observability.harness import Answer, Harness

Call = Callable[..., Awaitable[Answer]]


class Receiver(service.TraceServiceServicer):
    """An OTLP collector in a few lines: keeps what it gets, fails or hangs on request."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.failure: grpc.StatusCode | None = None
        self.gate: threading.Event | None = None

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the generated interface's name
        if self.gate is not None:
            self.gate.wait(30)
        if self.failure is not None:
            context.abort(self.failure, "refused")
        self.requests.append(request)
        return messages.ExportTraceServiceResponse()

    def spans(self) -> list[Any]:
        scopes = [s for request in self.requests for r in request.resource_spans for s in r.scope_spans]
        return [span for scope in scopes for span in scope.spans]

    def resource(self) -> dict[str, str]:
        attributes = self.requests[0].resource_spans[0].resource.attributes
        return {attribute.key: attribute.value.string_value for attribute in attributes}


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    servicer = Receiver()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service.add_TraceServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield servicer, f"http://127.0.0.1:{port}"
    if servicer.gate is not None:
        servicer.gate.set()
    server.stop(None).wait()


def totals(harness: Harness) -> tuple[float | None, float | None, float | None]:
    return (
        harness.sample("telemetry_spans_exported_total"),
        harness.sample("telemetry_spans_dropped_total"),
        harness.sample("telemetry_exports_failed_total", signal="traces"),
    )


async def test_spans_reach_a_collector_with_their_resource(
    start: Callable[..., Harness], call: Call, receiver: tuple[Receiver, str]
) -> None:
    collector, endpoint = receiver
    harness = start(otlp_endpoint=endpoint, version="1.2.3")
    answer = await call(TelemetryMiddleware(PlainTextResponse("x"), harness.telemetry))
    assert await asyncio.to_thread(harness.telemetry.flush, 10.0)
    (span,) = collector.spans()
    assert span.trace_id.hex() == answer.header("traceresponse").split("-")[1]
    expected = {
        "service.name": "orders",
        "service.namespace": "shop",
        "service.instance.id": "unit:1",
        "service.version": "1.2.3",
        "deployment.environment.name": "test",
    }
    assert expected.items() <= collector.resource().items()
    assert totals(harness) == (1, 0, 0)


async def test_close_sends_what_is_queued(
    start: Callable[..., Harness], receiver: tuple[Receiver, str]
) -> None:
    collector, endpoint = receiver
    harness = start(otlp_endpoint=endpoint)
    for number in range(1_500):
        harness.telemetry.tracer.start_span(f"s{number}").end()
    await harness.telemetry.close(timeout=20)
    assert len(collector.spans()) == 1_500
    assert totals(harness) == (1_500, 0, 0)


async def test_a_dead_endpoint_changes_no_answer_and_does_not_hold_the_shutdown(
    start: Callable[..., Harness], call: Call
) -> None:
    harness = start(otlp_endpoint="http://127.0.0.1:1")
    app = TelemetryMiddleware(PlainTextResponse("x"), harness.telemetry)
    for _ in range(20):
        assert (await call(app)).status == 200
    assert not await asyncio.to_thread(harness.telemetry.flush, 0.2)
    before = time.monotonic()
    await harness.telemetry.close(timeout=0.5)
    assert time.monotonic() - before < 10
    exported, dropped, failed = totals(harness)
    assert (exported, dropped) == (0, 20)
    assert failed is not None
    assert failed >= 1
    assert len(harness.lines("http.request")) == 20
    complaints = [line for line in harness.lines() if line["logger"].startswith("opentelemetry")]
    assert complaints
    assert len(complaints) <= 4


async def test_a_collector_that_hangs_does_not_hold_the_shutdown(
    start: Callable[..., Harness], receiver: tuple[Receiver, str]
) -> None:
    collector, endpoint = receiver
    collector.gate = threading.Event()
    harness = start(otlp_endpoint=endpoint)
    harness.telemetry.tracer.start_span("x").end()
    assert not await asyncio.to_thread(harness.telemetry.flush, 0.2)
    before = time.monotonic()
    await harness.telemetry.close(timeout=0.5)
    assert time.monotonic() - before < 10
    assert totals(harness)[:2] == (0, 1)


async def test_a_refused_batch_is_counted_as_lost(
    start: Callable[..., Harness], receiver: tuple[Receiver, str]
) -> None:
    collector, endpoint = receiver
    collector.failure = grpc.StatusCode.INVALID_ARGUMENT
    harness = start(otlp_endpoint=endpoint)
    for _ in range(3):
        harness.telemetry.tracer.start_span("x").end()
    assert await asyncio.to_thread(harness.telemetry.flush, 10.0)
    exported, dropped, failed = totals(harness)
    assert (exported, dropped) == (0, 3)
    assert failed in {1, 2, 3}
    collector.failure = None
    harness.telemetry.tracer.start_span("y").end()
    assert await asyncio.to_thread(harness.telemetry.flush, 10.0)
    assert totals(harness) == (1, 3, failed)


async def test_sampling_by_ratio_leaves_the_ids_in_the_logs(
    start: Callable[..., Harness], call: Call
) -> None:
    harness = start(sample_ratio=0.0)
    answer = await call(TelemetryMiddleware(PlainTextResponse("x"), harness.telemetry))
    assert harness.spans() == []
    line = harness.line("http.request")
    assert answer.header("traceresponse").split("-")[1] == line["traceId"]
    assert not [text for text in harness.metrics() if "trace_id" in text]


class Gated(SpanExporter):
    """Holds each export until told; then answers with what is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.names: list[str] = []
        self.result: SpanExportResult | Exception = SpanExportResult.SUCCESS
        self.suppressed: list[bool] = []
        self.shut = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        from opentelemetry.instrumentation.utils import is_instrumentation_enabled  # noqa: PLC0415

        self.suppressed.append(not is_instrumentation_enabled())
        self.entered.set()
        self.gate.wait(30)
        if isinstance(self.result, Exception):
            raise self.result
        self.names += [span.name for span in spans]
        return self.result

    def shutdown(self) -> None:
        self.shut = True
        self.gate.set()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return True


def ended(name: str) -> ReadableSpan:
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415

    return ReadableSpan(name, SpanContext(1, 2, is_remote=False, trace_flags=TraceFlags(1)))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def settled(registry: CollectorRegistry) -> tuple[float | None, float | None]:
    return registry.get_sample_value("telemetry_spans_exported_total"), registry.get_sample_value(
        "telemetry_spans_dropped_total"
    )


def test_a_full_queue_drops_the_oldest_and_counts_each(registry: CollectorRegistry) -> None:
    exporter = Gated()
    processor = BatchProcessor(
        exporter, TelemetryCounters(registry), queue_size=10, batch_size=5, interval=0.01
    )
    processor.on_end(ended("first"))
    assert exporter.entered.wait(10)
    for number in range(25):
        processor.on_end(ended(f"s{number}"))
    assert settled(registry) == (0, 15)
    exporter.gate.set()
    assert processor.force_flush(10_000)
    assert exporter.names == ["first", *(f"s{number}" for number in range(15, 25))]
    assert settled(registry) == (11, 15)
    processor.shutdown()
    assert exporter.shut


def test_a_flush_that_takes_too_long_says_so(registry: CollectorRegistry) -> None:
    exporter = Gated()
    processor = BatchProcessor(exporter, TelemetryCounters(registry), interval=0.01)
    processor.on_end(ended("x"))
    assert processor.force_flush(50) is False
    exporter.gate.set()
    assert processor.force_flush(10_000) is True
    processor.shutdown()
    assert exporter.suppressed == [True]


def test_a_shutdown_drops_what_it_cannot_send_in_time(registry: CollectorRegistry) -> None:
    exporter = Gated()
    exporter.result = SpanExportResult.FAILURE
    processor = BatchProcessor(exporter, TelemetryCounters(registry), batch_size=2, interval=0.01)
    for number in range(9):
        processor.on_end(ended(f"s{number}"))
    processor.shutdown(0.05)
    processor.shutdown(0.05)
    processor.on_end(ended("too late"))
    assert settled(registry) == (0, 10)
    assert processor.force_flush(1_000) is True


def test_an_exporter_that_raises_does_not_end_the_exports(registry: CollectorRegistry) -> None:
    exporter = Gated()
    exporter.gate.set()
    exporter.result = RuntimeError("broken exporter")
    processor = BatchProcessor(exporter, TelemetryCounters(registry), interval=0.01)
    processor.on_end(ended("x"))
    assert processor.force_flush(10_000)
    exporter.result = SpanExportResult.SUCCESS
    processor.on_end(ended("y"))
    assert processor.force_flush(10_000)
    assert settled(registry) == (1, 1)
    processor.shutdown()


async def test_one_span_that_cannot_be_encoded_takes_no_other_with_it(
    start: Callable[..., Harness], receiver: tuple[Receiver, str]
) -> None:
    collector, endpoint = receiver
    harness = start(otlp_endpoint=endpoint)
    for number in range(20):
        name = "\ud800" if number == 7 else f"s{number}"
        harness.telemetry.tracer.start_span(name).end()
    assert await asyncio.to_thread(harness.telemetry.flush, 10.0)
    assert len(collector.spans()) == 19
    assert totals(harness) == (19, 1, 1)


async def test_long_attributes_are_cut(harness: Harness, call: Call) -> None:
    with harness.telemetry.tracer.start_as_current_span("x") as span:
        span.set_attribute("db.query.text", "x" * 100_000)
    await call(TelemetryMiddleware(PlainTextResponse("x"), harness.telemetry), "/" + "y" * 100_000)
    lengths = [len(str(v)) for s in harness.spans() for v in (s.attributes or {}).values()]
    assert max(lengths) == 4_096
    assert len(str((harness.spans()[1].attributes or {})["url.path"])) == 1_024


def test_threads_lose_no_count(registry: CollectorRegistry) -> None:
    exporter = Gated()
    exporter.gate.set()
    processor = BatchProcessor(
        exporter, TelemetryCounters(registry), queue_size=50, batch_size=10, interval=0.001
    )

    def work() -> None:
        for _ in range(500):
            processor.on_end(ended("x"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    processor.shutdown()
    exported, dropped = settled(registry)
    assert (exported or 0) + (dropped or 0) == 2_000
    assert exported == len(exporter.names)


def test_a_process_that_forgets_to_close_still_sends(receiver: tuple[Receiver, str]) -> None:
    collector, endpoint = receiver
    program = f"""
from observability import Telemetry, TelemetryConfig
telemetry = Telemetry.start(TelemetryConfig("forgetful", otlp_endpoint={endpoint!r}))
telemetry.tracer.start_span("last words").end()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert [span.name for span in collector.spans()] == ["last words"]
