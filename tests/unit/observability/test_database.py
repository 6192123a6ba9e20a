"""Database spans on real servers: one object instrumented, stable names, no values, and none for pollers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from opentelemetry.trace import SpanKind, StatusCode
from redis.asyncio import Redis
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from observability import instrument_redis, instrument_sqlalchemy
from tests.unit.observability.harness import Harness


def engine_for(postgres_url: str) -> AsyncEngine:
    return create_async_engine(postgres_url.replace("postgresql://", "postgresql+asyncpg://"))


async def test_statements_of_this_engine_are_spans_below_the_current_one(
    harness: Harness, postgres_url: str
) -> None:
    watched, other = engine_for(postgres_url), engine_for(postgres_url)
    instrument_sqlalchemy(harness.telemetry, watched)
    try:
        with harness.telemetry.tracer.start_as_current_span("effect") as effect:
            for engine in (watched, other):
                async with engine.connect() as connection:
                    await connection.execute(text("SELECT :secret"), {"secret": "s3cret-value"})
        async with watched.connect() as connection:
            await connection.execute(text("SELECT 'poll'"))
    finally:
        await watched.dispose()
        await other.dispose()
    spans = [span for span in harness.spans() if span.kind is SpanKind.CLIENT]
    assert len(spans) == 1
    attributes = dict(spans[0].attributes or {})
    assert spans[0].parent is not None
    assert spans[0].parent.span_id == effect.get_span_context().span_id
    assert spans[0].name.startswith("SELECT")
    assert attributes["db.system.name"] == "postgresql"
    assert str(attributes["db.query.text"]).startswith("SELECT $1")
    assert "db.statement" not in attributes
    assert "s3cret-value" not in str(attributes)


async def test_a_failing_statement_marks_its_span(harness: Harness, postgres_url: str) -> None:
    engine = engine_for(postgres_url)
    instrument_sqlalchemy(harness.telemetry, engine)
    try:
        with harness.telemetry.tracer.start_as_current_span("effect"):
            async with engine.connect() as connection:
                with pytest.raises(DBAPIError):
                    await connection.execute(text("SELECT * FROM no_such_table"))
    finally:
        await engine.dispose()
    assert harness.spans()[0].status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("roots", [False, True])
async def test_commands_of_this_client_are_spans(harness: Harness, redis_url: str, *, roots: bool) -> None:
    watched, other = Redis.from_url(redis_url), Redis.from_url(redis_url)
    instrument_redis(harness.telemetry, watched, roots=roots)
    try:
        with harness.telemetry.tracer.start_as_current_span("effect"):
            await watched.set("key:with:secret", "value")
            async with watched.pipeline() as pipe:
                await pipe.get("key:with:secret").delete("key:with:secret").execute()
            await other.ping()
        await watched.ping()
    finally:
        await watched.aclose()
        await other.aclose()
    spans = [span for span in harness.spans() if span.kind is SpanKind.CLIENT]
    assert len(spans) == (3 if roots else 2)
    assert all((span.attributes or {})["db.system.name"] == "redis" for span in spans)
    assert "secret" not in str([dict(span.attributes or {}) for span in spans])


async def test_disabled_telemetry_instruments_nothing(start: Callable[..., Harness], redis_url: str) -> None:
    client = Redis.from_url(redis_url)
    before = client.execute_command
    instrument_redis(start(enabled=False).telemetry, client)
    assert client.execute_command == before
    await client.aclose()
