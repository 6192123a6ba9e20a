"""Spans without keys or values, slow commands, and messages over a line that breaks."""

import asyncio
from pathlib import Path

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from service.infra.redis import Message, RedisStore, Subscription
from tests.integration.service.redis.harness import Kit, lossy, opened


async def test_commands_are_spans_below_a_span_and_show_nothing_of_what_they_carry(kit: Kit) -> None:
    await kit.store.set("secret-key", "secret-value")
    assert kit.spans() == []
    with kit.telemetry.tracer.start_as_current_span("request") as request:
        await kit.store.get("secret-key")
        pipe = kit.store.pipeline()
        pipe.get("secret-key")
        pipe.incr("n")
        await pipe.execute()
    get, batch, _ = kit.spans()
    assert (get.name, batch.name) == ("GET", "PIPELINE")
    for span in (get, batch):
        assert span.kind is SpanKind.CLIENT
        assert span.parent is not None
        assert span.parent.span_id == request.get_span_context().span_id
        attributes = dict(span.attributes or {})
        assert attributes["db.system.name"] == "redis"
        assert (attributes["db.namespace"], attributes["server.address"]) == ("5", "127.0.0.1")
        assert "secret" not in str(attributes)
    assert (batch.attributes or {})["db.operation.batch.size"] == 2


async def test_a_fault_marks_the_span(tmp_path: Path) -> None:
    async with opened("redis://127.0.0.1:1/0", tmp_path, retries=1, retry_delay_ms=1) as kit:
        with kit.telemetry.tracer.start_as_current_span("request"), pytest.raises(Exception, match="127"):
            await kit.store.get("k")
        span = kit.spans()[0]
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "connection"
    assert [event.name for event in span.events] == ["redis.retry"]


async def test_slow_commands_are_counted_from_100_ms(kit: Kit) -> None:
    await kit.store.get("k")
    await kit.store.raw.client_pause(200)
    await kit.store.incr("n")
    await kit.store.get("k")
    assert kit.metric("redis_slow_commands_total", {"command": "INCRBY"}) == 1
    assert kit.metric("redis_slow_commands_total", {"command": "GET"}) == 0
    assert kit.metric("redis_command_seconds_count", {"command": "INCRBY"}) == 1
    assert kit.metric("redis_command_seconds_sum", {"command": "INCRBY"}) >= 0.1


async def collect(subscription: Subscription, into: list[Message]) -> None:
    async for message in subscription:
        into += [message]


async def said(store: RedisStore, channel: str, text: str, into: list[Message]) -> None:
    """Publish until it has arrived."""
    async with asyncio.timeout(10):
        while text.encode() not in [message.data for message in into]:
            await store.publish(channel, text)
            await asyncio.sleep(0.05)


async def test_messages_of_channels_and_patterns_over_a_line_that_breaks(
    redis_database: str, tmp_path: Path, kit: Kit
) -> None:
    gaps: list[int] = []
    received: list[Message] = []
    async with (
        lossy(redis_database) as way,
        opened(way.url, tmp_path / "other") as other,
        other.store.subscribe("news", patterns=["live:*"], on_gap=lambda: gaps.append(1)) as subscription,
    ):
        task = asyncio.create_task(collect(subscription, received))
        await asyncio.wait_for(subscription.ready(), 5)
        assert await kit.store.publish("news", "one") == 1
        assert await kit.store.publish("live:7", {"two": 2}) == 1
        assert await kit.store.publish("elsewhere", "three") == 0
        await said(kit.store, "news", "here", received)
        assert received[:2] == [Message("news", b"one"), Message("live:7", b'{"two":2}')]
        for writer in way._writers:
            writer.close()
        await said(kit.store, "live:8", "again", received)
        assert (len(gaps), subscription.gaps) == (1, 1)
        assert other.metric("redis_resubscriptions_total") == 1
        # A subscription has a connection of its own.
        assert other.metric("redis_pool_connections", {"state": "used"}) == 0
        task.cancel()
    with pytest.raises(ValueError, match="at least one channel"):
        async with kit.store.subscribe():
            pass
