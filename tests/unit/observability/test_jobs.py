"""Jobs: one trace over outbox, queue and worker; what each outcome counts and logs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from observability import Attempt, JobTelemetry, current, get_logger
from tests.unit.observability.harness import Harness, fail

JOB = "order.invoice.v1"
log = get_logger("tests.jobs")


@pytest.fixture
def jobs(harness: Harness) -> JobTelemetry:
    return JobTelemetry(harness.telemetry, system="redis", queue="shop:jobs")


def now() -> datetime:
    return datetime.now(UTC)


def count(harness: Harness, name: str, job: str = JOB) -> float | None:
    return harness.sample(f"shop_jobs_{name}", job_name=job)


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return int(span.parent.span_id)


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


async def test_one_trace_from_the_request_to_the_effect(harness: Harness, jobs: JobTelemetry) -> None:
    request = harness.telemetry.tracer.start_as_current_span("POST /orders", kind=SpanKind.SERVER)
    with request, jobs.outbox(JOB, "j1") as stored:
        pass
    with jobs.publish(JOB, "j1", stored) as sent:
        pass
    with harness.telemetry.tracer.start_as_current_span("poll of the worker"):
        async with jobs.process(JOB, "j1", sent, attempt=1, enqueued_at=now(), created_at=now(), context={}):
            with harness.telemetry.tracer.start_as_current_span("order.invoice"):
                log.info("invoice.written")
    server, outbox = harness.span("POST /orders"), harness.span(f"outbox {JOB}")
    publish, process, effect = (
        harness.span(n) for n in (f"publish {JOB}", f"process {JOB}", "order.invoice")
    )
    kinds = [span.kind for span in (outbox, publish, process)]
    assert kinds == [SpanKind.INTERNAL, SpanKind.PRODUCER, SpanKind.CONSUMER]
    assert parent_of(outbox) == id_of(server)
    assert parent_of(publish) == id_of(outbox)
    assert parent_of(process) == id_of(publish)
    assert parent_of(effect) == id_of(process)
    assert (
        len({span.context.trace_id for span in (server, outbox, publish, process, effect) if span.context})
        == 1
    )
    assert dict(process.attributes or {}) == {
        "messaging.system": "redis",
        "messaging.destination.name": "shop:jobs",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": "j1",
        "messaging.job.outcome": "done",
    }
    assert (publish.attributes or {})["messaging.operation.type"] == "send"
    assert set(stored) == {"traceparent"}
    assert server.context is not None
    assert harness.line("invoice.written")["traceId"] == f"{server.context.trace_id:032x}"


async def test_a_retry_is_a_new_trace_with_a_link(harness: Harness, jobs: JobTelemetry) -> None:
    with jobs.publish(JOB, "j1", {}) as sent:
        pass
    with harness.telemetry.tracer.start_as_current_span("something else"):
        async with jobs.process(JOB, "j1", sent, attempt=2, enqueued_at=now()):
            pass
    first, retry = harness.span(f"publish {JOB}"), harness.span(f"process {JOB}")
    assert retry.parent is None
    assert first.context is not None
    assert retry.context is not None
    assert retry.context.trace_id != first.context.trace_id
    (link,) = retry.links
    assert (link.context.trace_id, link.context.span_id) == (first.context.trace_id, first.context.span_id)
    assert (retry.attributes or {})["messaging.message.attempt"] == 2


@pytest.mark.parametrize(
    "carrier", [{}, {"traceparent": "nonsense"}, {"traceparent": ""}, {"traceparent": "é" * 55}]
)
@pytest.mark.parametrize("attempt", [1, 2])
async def test_a_job_without_a_usable_carrier_still_runs(
    harness: Harness, jobs: JobTelemetry, carrier: dict[str, str], attempt: int
) -> None:
    async with jobs.process(JOB, "j1", carrier, attempt=attempt, enqueued_at=now()):
        pass
    span = harness.span(f"process {JOB}")
    assert span.parent is None
    assert not span.links


async def test_done_is_counted_measured_and_logged(harness: Harness, jobs: JobTelemetry) -> None:
    with jobs.publish(JOB, "j1", {}) as sent:
        assert count(harness, "enqueued_total") == 0
    assert count(harness, "enqueued_total") == 1
    enqueued, created = now() - timedelta(seconds=20), now() - timedelta(seconds=40)
    async with jobs.process(JOB, "j1", sent, attempt=1, enqueued_at=enqueued, created_at=created):
        assert harness.sample("shop_jobs_in_flight") == 1
    assert harness.sample("shop_jobs_in_flight") == 0
    assert (
        count(harness, "started_total"),
        count(harness, "done_total"),
        count(harness, "failed_total"),
    ) == (1, 1, 0)
    wait, fresh = count(harness, "wait_seconds_sum"), count(harness, "freshness_seconds_sum")
    assert wait == pytest.approx(20, abs=5)
    assert fresh == pytest.approx(40, abs=5)
    assert harness.sample("shop_jobs_freshness_seconds_bucket", job_name=JOB, le="30.0") == 0
    assert harness.sample("shop_jobs_freshness_seconds_bucket", job_name=JOB, le="60.0") == 1
    line = harness.line("job.done")
    assert (line["level"], line["job"], line["jobId"], line["attempt"]) == ("info", JOB, "j1", 1)
    assert line["action"] == JOB
    for name in ("wait", "run", "freshness"):
        assert [m for m in harness.metrics(f"shop_jobs_{name}_seconds_bucket") if line["traceId"] in m]


async def test_a_failed_publish_is_not_counted(harness: Harness, jobs: JobTelemetry) -> None:
    with pytest.raises(ConnectionError), jobs.publish(JOB, "j1", {}):
        raise ConnectionError("redis://:secret@cache refused")
    assert count(harness, "enqueued_total") == 0
    span = harness.span(f"publish {JOB}")
    assert span.status.status_code is StatusCode.ERROR
    assert "secret" not in str(span.status.description)


@pytest.mark.parametrize(
    ("say", "event", "level"),
    [
        (lambda run, error: None, "job.failed", "error"),
        (lambda run, error: run.retried(error, delay=5.0), "job.retried", "warning"),
        (lambda run, error: run.dead(error), "job.dead", "error"),
    ],
)
async def test_a_failure_is_recorded_and_raised_on(
    harness: Harness, jobs: JobTelemetry, say: Callable[[Attempt, Exception], None], event: str, level: str
) -> None:
    async def attempt() -> None:
        async with jobs.process(JOB, "j1", {}, attempt=1, enqueued_at=now(), created_at=now()) as run:
            try:
                fail(ValueError("no amount"))
            except ValueError as error:
                say(run, error)
                raise

    with pytest.raises(ValueError, match="no amount"):
        await attempt()
    counted = {name: count(harness, f"{name}_total") for name in ("failed", "retried", "dead")}
    assert counted == {"failed": 1, "retried": event == "job.retried", "dead": event == "job.dead"}
    assert count(harness, "done_total") == 0
    assert count(harness, "freshness_seconds_count") == 0
    line = harness.line(event)
    assert line["level"] == level
    assert line["exception"][0]["value"] == "no amount"
    assert line.get("delay") == (5.0 if event == "job.retried" else None)
    span = harness.span(f"process {JOB}")
    assert span.status.status_code is StatusCode.ERROR
    assert [e.name for e in span.events] == ["exception"]
    assert harness.sample("shop_jobs_in_flight") == 0


async def test_the_cause_given_counts_not_the_control_flow_that_is_raised(
    harness: Harness, jobs: JobTelemetry
) -> None:
    class Retry(Exception):  # noqa: N818 - as queue libraries name it
        pass

    async def attempt() -> None:
        async with jobs.process(JOB, "j1", {}, attempt=1, enqueued_at=now()) as run:
            run.retried(ValueError("the cause"), delay=1)
            raise Retry

    with pytest.raises(Retry):
        await attempt()
    assert harness.line("job.retried")["exception"][0]["type"] == "ValueError"
    assert (harness.span(f"process {JOB}").attributes or {})["error.type"] == "ValueError"


async def test_a_cancelled_attempt_is_interrupted_not_failed(harness: Harness, jobs: JobTelemetry) -> None:
    async def attempt() -> None:
        async with jobs.process(JOB, "j1", {}, attempt=1, enqueued_at=now()):
            await asyncio.sleep(60)

    task = asyncio.ensure_future(attempt())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert harness.line("job.interrupted")["level"] == "warning"
    assert (count(harness, "failed_total"), count(harness, "done_total")) == (0, 0)
    assert harness.sample("shop_jobs_in_flight") == 0


async def test_the_envelopes_metadata_is_in_each_line(harness: Harness, jobs: JobTelemetry) -> None:
    meta = {"correlationId": "req-9", "userId": "u1", "tenant": "acme", "source": "api", "role": None}
    with jobs.process(JOB, "j1", {}, attempt=1, enqueued_at=now(), context=meta):
        log.info("inside")
    for event in ("inside", "job.done"):
        line = harness.line(event)
        assert (line["requestId"], line["userId"], line["tenant"], line["action"]) == (
            "req-9",
            "u1",
            "acme",
            JOB,
        )
        assert "role" not in line
    assert current().request_id == ""


async def test_concurrent_attempts_keep_their_own_context(harness: Harness, jobs: JobTelemetry) -> None:
    gate = asyncio.Barrier(10)

    async def one(number: int) -> None:
        async with jobs.process(
            JOB, f"j{number}", {}, attempt=1, enqueued_at=now(), context={"userId": f"u{number}"}
        ):
            await gate.wait()
            log.info("inside", expected=f"u{number}")

    await asyncio.gather(*(one(n) for n in range(10)))
    assert [line for line in harness.lines("inside") if line["userId"] != line["expected"]] == []
    assert len({line["traceId"] for line in harness.lines("inside")}) == 10


async def test_unknown_job_names_share_one_series_in_the_end(harness: Harness, jobs: JobTelemetry) -> None:
    for number in range(300):
        jobs.metrics.series(f"made.up.{number}").started.inc()
    assert count(harness, "started_total", "_other") == 100
    assert len(harness.metrics("shop_jobs_started_total")) == 201


async def test_a_clock_that_runs_behind_makes_no_negative_wait(harness: Harness, jobs: JobTelemetry) -> None:
    async with jobs.process(JOB, "j1", {}, attempt=1, enqueued_at=now() + timedelta(seconds=9)):
        pass
    assert count(harness, "wait_seconds_sum") == 0


async def test_disabled_jobs_run_and_log_without_spans_or_counts(start: Callable[..., Harness]) -> None:
    harness = start(enabled=False)
    jobs = JobTelemetry(harness.telemetry, system="redis", queue="q")
    with jobs.outbox(JOB, "j1") as stored, jobs.publish(JOB, "j1", stored) as sent:
        assert (stored, sent) == ({}, {})
    async with jobs.process(JOB, "j1", sent, attempt=1, enqueued_at=now(), context={"userId": "u1"}):
        pass
    assert harness.line("job.done")["userId"] == "u1"
    assert not harness.metrics("shop_jobs_started_total")
