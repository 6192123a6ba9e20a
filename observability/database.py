"""Database spans by the stock instrumentations, on the given objects only, in the stable conventions."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Tracer, TracerProvider
from opentelemetry.util._decorator import _agnosticcontextmanager

from observability.setup import Telemetry

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncEngine


def instrument_sqlalchemy(telemetry: Telemetry, engine: AsyncEngine, *, roots: bool = False) -> None:
    """A CLIENT span for each statement of this engine: text with placeholders, never its parameters.

    Without `roots`, statements outside of a trace make none: a poller would otherwise fill the store.
    """
    if not telemetry.enabled or telemetry.provider is None:
        return
    _stable_conventions()
    from opentelemetry.instrumentation.sqlalchemy.engine import EngineTracer  # noqa: PLC0415

    provider: TracerProvider = telemetry.provider if roots else _ChildOnlyProvider(telemetry.provider)
    tracer = provider.get_tracer("opentelemetry.instrumentation.sqlalchemy")
    # The pool is measured where it is opened; this instrument goes nowhere.
    usage = metrics.NoOpMeter("pool").create_up_down_counter("db.client.connections.usage")
    EngineTracer(tracer, engine.sync_engine, usage)  # type: ignore[no-untyped-call]


def instrument_redis(telemetry: Telemetry, client: Redis, *, roots: bool = False) -> None:
    """A CLIENT span for each command and pipeline of this client: `SET ? ?`, never keys or values."""
    if not telemetry.enabled or telemetry.provider is None:
        return
    _stable_conventions()
    from opentelemetry.instrumentation.redis import RedisInstrumentor  # noqa: PLC0415

    provider: TracerProvider = telemetry.provider if roots else _ChildOnlyProvider(telemetry.provider)
    RedisInstrumentor.instrument_client(client, tracer_provider=provider)


def _stable_conventions() -> None:
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database")


class _ChildOnlyProvider(TracerProvider):
    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider

    def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
        return _ChildOnlyTracer(self._provider.get_tracer(*args, **kwargs))


class _ChildOnlyTracer(Tracer):
    """Starts spans below a span and nothing elsewhere."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def start_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        *args: Any,
        **kwargs: Any,
    ) -> Span:
        if not trace.get_current_span(context).get_span_context().is_valid:
            return trace.INVALID_SPAN
        return self._tracer.start_span(name, context, kind, *args, **kwargs)

    @_agnosticcontextmanager
    def start_as_current_span(
        self,
        name: str,
        context: Context | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        *args: Any,
        **kwargs: Any,
    ) -> Iterator[Span]:
        if not trace.get_current_span(context).get_span_context().is_valid:
            yield trace.INVALID_SPAN
            return
        with self._tracer.start_as_current_span(name, context, kind, *args, **kwargs) as span:
            yield span
