"""Jobs: the trace from outbox to effect, metrics and one line per attempt, for any queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import Token
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode

from observability import logs
from observability.context import RequestContext, current_context, from_mapping
from observability.exceptions import message, span_attributes, type_name
from observability.metrics import JobSeries, exemplar
from observability.setup import Telemetry
from observability.tracing import parse_traceparent, traceparent

Carrier = dict[str, str]
_ROOT = Context()


class JobTelemetry:
    """Telemetry of one queue. `system` is `redis`, `rabbitmq`, `file`; `queue` the destination's name."""

    def __init__(self, telemetry: Telemetry, *, system: str, queue: str) -> None:
        self._telemetry = telemetry
        self._tracer = telemetry.tracer
        self.metrics = telemetry.metrics.jobs
        self.enabled = telemetry.enabled
        self._attributes = {"messaging.system": system, "messaging.destination.name": queue}

    def attributes(self, operation: str, job_id: str) -> dict[str, Any]:
        """Span attributes by the messaging conventions; `operation` is `create`, `send` or `process`."""
        return {
            **self._attributes,
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.message.id": job_id,
        }

    @contextmanager
    def outbox(self, job: str, job_id: str) -> Iterator[Carrier]:
        """Around writing the outbox row, in the request's transaction. Gives the carrier for the row."""
        with self._span(f"outbox {job}", SpanKind.INTERNAL, None, self.attributes("create", job_id)) as span:
            yield inject(span.get_span_context())

    @contextmanager
    def publish(self, job: str, job_id: str, carrier: Mapping[str, str]) -> Iterator[Carrier]:
        """Around handing the job to the queue. Gives the envelope's carrier; counts the job on success."""
        series = self.metrics.series(job) if self.enabled else None
        parent = _remote(extract(carrier))
        with self._span(f"publish {job}", SpanKind.PRODUCER, parent, self.attributes("send", job_id)) as span:
            yield inject(span.get_span_context())
        if series is not None:
            series.enqueued.inc()

    def process(
        self,
        job: str,
        job_id: str,
        carrier: Mapping[str, str],
        *,
        attempt: int,
        enqueued_at: datetime,
        created_at: datetime | None = None,
        context: Mapping[str, object] | None = None,
    ) -> Attempt:
        """Around one attempt, `with` or `async with`. `attempt` counts from 1; times carry their zone.

        `created_at` is the business commit, from which freshness counts; `context` the envelope's metadata.
        """
        return Attempt(
            self,
            job,
            job_id,
            caller=extract(carrier),
            attempt=attempt,
            enqueued_at=enqueued_at,
            created_at=created_at,
            context=from_mapping(context or {}),
        )

    def start(self, name: str, kind: SpanKind, parent: Context | None, **options: Any) -> Span:
        return self._tracer.start_span(name, context=parent, kind=kind, **options)

    @contextmanager
    def _span(
        self, name: str, kind: SpanKind, parent: Context | None, attributes: dict[str, Any]
    ) -> Iterator[Span]:
        if not self.enabled:
            yield trace.INVALID_SPAN
            return
        span = self.start(name, kind, parent, attributes=attributes)
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield span
            except BaseException as error:
                record_error(span, error)
                raise


class Attempt:
    """One attempt at a job. The failure middleware says before the end what follows: `retried` or `dead`."""

    def __init__(
        self,
        owner: JobTelemetry,
        job: str,
        job_id: str,
        *,
        caller: SpanContext | None,
        attempt: int,
        enqueued_at: datetime,
        created_at: datetime | None,
        context: RequestContext,
    ) -> None:
        self._owner, self._job, self._job_id, self._attempt = owner, job, job_id, attempt
        self._enqueued_at, self._created_at = enqueued_at, created_at
        self._caller = caller
        self._context = context
        if not self._context.action:
            self._context.action = job
        self._outcome = ""
        self._error: BaseException | None = None
        self._fields: dict[str, Any] = {}

    def retried(self, error: BaseException | None = None, *, delay: float | None = None) -> None:
        """The attempt failed and the job will be tried again, `delay` seconds from now."""
        self._settle("retried", error, {} if delay is None else {"delay": delay})

    def dead(self, error: BaseException | None = None) -> None:
        """The attempt failed and the job is given up."""
        self._settle("dead", error, {})

    def _settle(self, outcome: str, error: BaseException | None, fields: dict[str, Any]) -> None:
        self._outcome, self._fields = outcome, fields
        self._error = error or self._error

    def __enter__(self) -> Self:
        self._context_token: Token[RequestContext | None] = current_context.set(self._context)
        self._started = time.time_ns()
        self._span: Span = trace.INVALID_SPAN
        owner = self._owner
        if owner.enabled:
            self._span = self._start_span()
            self._series: JobSeries = owner.metrics.series(self._job)
            owner.metrics.in_flight += 1
            self._series.started.inc()
            wait = self._started / 1e9 - _seconds(self._enqueued_at)
            self._series.wait.observe(max(0.0, wait), exemplar(self._span.get_span_context()))
        self._span_token = otel_context.attach(trace.set_span_in_context(self._span))
        return self

    def _start_span(self) -> Span:
        attributes = self._owner.attributes("process", self._job_id)
        name, started = f"process {self._job}", self._started
        if self._attempt > 1:
            attributes["messaging.message.attempt"] = self._attempt
            links = [Link(self._caller)] if self._caller is not None else []
            return self._owner.start(
                name, SpanKind.CONSUMER, _ROOT, attributes=attributes, links=links, start_time=started
            )
        return self._owner.start(
            name, SpanKind.CONSUMER, _remote(self._caller), attributes=attributes, start_time=started
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        ended = time.time_ns()
        cause = self._error or error
        outcome = self._outcome or _outcome(error)
        try:
            if self._owner.enabled:
                self._record(outcome, cause, ended)
            self._line(outcome, cause, ended)
        finally:
            otel_context.detach(self._span_token)
            current_context.reset(self._context_token)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace_back: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace_back)

    def _record(self, outcome: str, error: BaseException | None, ended: int) -> None:
        series, span = self._series, self._span
        self._owner.metrics.in_flight -= 1
        shown = exemplar(span.get_span_context())
        series.run.observe(max(0, ended - self._started) / 1e9, shown)
        if outcome == "done":
            series.done.inc()
            if self._created_at is not None:
                series.freshness.observe(max(0.0, ended / 1e9 - _seconds(self._created_at)), shown)
        elif outcome != "interrupted":
            series.failed.inc()
            if outcome == "retried":
                series.retried.inc()
            elif outcome == "dead":
                series.dead.inc()
            if error is not None:
                record_error(span, error)
            else:
                span.set_status(StatusCode.ERROR)
        span.set_attribute("messaging.job.outcome", outcome)
        span.end(ended)

    def _line(self, outcome: str, error: BaseException | None, ended: int) -> None:
        level = {"done": 20, "retried": 30, "interrupted": 30}.get(outcome, 40)
        out = logs.pipeline()
        if level < out.level:
            return
        fields: dict[str, Any] = {
            "duration": max(0, ended - self._started) / 1e6,
            "job": self._job,
            "jobId": self._job_id,
            "attempt": self._attempt,
            **self._fields,
        }
        if error is not None and outcome != "interrupted":
            fields["exc_info"] = error
        out.emit(level, __name__, f"job.{outcome}", fields)


def inject(span: SpanContext) -> Carrier:
    """The carrier of a span: `traceparent`, and `tracestate` if there is one. Empty without a valid span."""
    if not span.is_valid:
        return {}
    carrier = {"traceparent": traceparent(span)}
    if span.trace_state:
        carrier["tracestate"] = span.trace_state.to_header()
    return carrier


def extract(carrier: Mapping[str, str]) -> SpanContext | None:
    """The span in a carrier; None if there is none or it is malformed."""
    value = carrier.get("traceparent")
    if not isinstance(value, str):
        return None
    state = carrier.get("tracestate")
    return parse_traceparent(
        value.encode("ascii", "replace"), state.encode("ascii", "replace") if isinstance(state, str) else None
    )


def record_error(span: Span, error: BaseException) -> None:
    """Mark a span as failed, without credentials and without local variables."""
    if span.is_recording() and not isinstance(error, asyncio.CancelledError):
        span.set_attribute("error.type", type_name(error))
        span.add_event("exception", span_attributes(error))
        span.set_status(StatusCode.ERROR, message(error))


def _remote(caller: SpanContext | None) -> Context:
    return _ROOT if caller is None else trace.set_span_in_context(NonRecordingSpan(caller), _ROOT)


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return "done"
    return "failed" if isinstance(error, Exception) else "interrupted"


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
