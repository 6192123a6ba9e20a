"""WebSocket streams from a real process: the same events, and what a client should not say."""

import asyncio
from uuid import uuid4

import pytest
from wsproto.events import BytesMessage, TextMessage

from tests.integration.service.harness import Service
from tests.integration.service.live.conftest import Start
from tests.integration.service.live.harness import WsClient, happened, reached


async def test_events_arrive_and_a_client_that_comes_back_misses_none(
    start: Start, service: Service, subject: str
) -> None:
    api = await start(LIVE_HEARTBEAT_SECONDS=0.2)
    client = await WsClient.connect(api.url, f"transaction.{subject}")
    ready = await client.next("ready")
    assert ready["topics"] == [f"transaction.{subject}"]
    for number in range(3):
        service.container.bus.publish(happened(subject, number=number))
    events = [await client.next("event") for _ in range(3)]
    assert [event["data"]["data"]["number"] for event in events] == [0, 1, 2]
    assert events[0]["event"] == "transaction.settled"
    assert (await client.next("heartbeat")) == {"type": "heartbeat"}
    client.close()
    for number in range(3, 6):
        service.container.bus.publish(happened(subject, number=number))
    back = await WsClient.connect(api.url, f"transaction.{subject}", after=events[1]["id"])
    events = [await back.next("event") for _ in range(4)]
    assert [event["data"]["data"]["number"] for event in events] == [2, 3, 4, 5]
    back.close()
    reset = await WsClient.connect(api.url, f"transaction.{subject}", after="garbage")
    assert (await reset.next("reset"))["reason"] == "unknown"
    reset.close()


async def test_topics_come_and_go(start: Start, service: Service, subject: str) -> None:
    api = await start(LIVE_MAX_TOPICS=2)
    client = await WsClient.connect(api.url)
    assert (await client.next())["topics"] == ["user.alice"]
    topic = f"transaction.{subject}"
    client.say({"type": "subscribe", "topics": [topic.upper().replace("TRANSACTION", "transaction"), topic]})
    assert (await client.next())["topics"] == [topic, "user.alice"]
    service.container.bus.publish(happened(subject, number=1, user="alice"))
    assert (await client.next())["data"]["data"]["number"] == 1
    client.say({"type": "subscribe", "topics": [f"transaction.{uuid4()}"]})
    assert (await client.next())["error"]["message"] == "At most 2 topics"
    client.say({"type": "unsubscribe", "topics": [topic, "never.seen"]})
    assert (await client.next())["topics"] == ["user.alice"]
    service.container.bus.publish(happened(subject, number=2))
    client.say({"type": "ping"})
    assert (await client.next()) == {"type": "pong"}
    client.close()


GARBAGE = (
    "", "garbage", "null", "[]", '{"type":"vanish"}', '{"type":"subscribe"}', '{"type":"ping","more":1}',
    '{"type":"subscribe","topics":[]}', '{"type":"subscribe","topics":[1]}', "[" * 3000,
    '{"type":"subscribe","topics":["nonsense"]}',
)  # fmt: skip


async def test_garbage_is_answered_and_the_stream_goes_on(start: Start) -> None:
    api = await start()
    client = await WsClient.connect(api.url)
    await client.next("ready")
    for text in GARBAGE:
        client.send(TextMessage(data=text))
        error = await client.next()
        assert (error["type"], error["statusCode"]) == ("error", 422), text
        assert error["error"]["code"] == "validation_failed"
    client.say({"type": "ping"})
    assert (await client.next())["type"] == "pong"
    client.close()


async def test_what_is_refused(start: Start) -> None:
    api = await start()
    client = await WsClient.connect(api.url)
    client.say({"type": "subscribe", "topics": ["user.bob"]})
    error = await client.next("error")
    assert (error["statusCode"], error["error"]["code"]) == (403, "forbidden")
    client.send(BytesMessage(data=b"\x00\xff" * 100))
    assert (await client.next("error"))["error"]["message"] == "Messages are text"
    assert await client.closed() == 1003
    client = await WsClient.connect(api.url)
    client.send(TextMessage(data="x" * 5000))
    assert (await client.next("error"))["error"]["message"] == "A message has at most 4096 characters"
    assert await client.closed() == 1009
    for topic, user, status in (("user.bob", "alice", 403), ("nonsense", "alice", 422), ("user.x", "", 401)):
        client = await WsClient.connect(api.url, topic, user=user)
        assert (await client.next("error"))["statusCode"] == status
        assert await client.closed() == 4000 + status
    # After all that, nothing is left behind.

    async def empty() -> bool:
        return await api.metric("yardstick_live_clients", transport="websocket") == 0

    await reached(empty)


async def test_one_that_asks_and_never_reads_is_dropped(start: Start) -> None:
    api = await start(LIVE_BUFFER_EVENTS=10)
    client = await WsClient.connect(api.url)

    async def dropped() -> bool:
        return await api.metric("yardstick_live_dropped_total", transport="websocket", reason="slow") == 1

    async def flood() -> None:
        while not client.writer.is_closing():
            client.say({"type": "garbage " + "x" * 3000})
            await client.writer.drain()

    client.reader._transport.pause_reading()  # type: ignore[attr-defined]
    flooding = asyncio.create_task(flood())
    await reached(dropped)
    flooding.cancel()
    await asyncio.wait({flooding})
    client.close()


async def test_a_drain_closes_with_a_hint(start: Start) -> None:
    api = await start()
    client = await WsClient.connect(api.url)
    await client.next("ready")
    stopping = asyncio.create_task(api.stop())
    closing = await client.next("closing")
    assert closing["reason"] == "draining"
    assert 0 < closing["retry"] <= 3000
    assert await client.closed() == 1012
    client.close()
    assert await stopping < 10
    assert api.handle.returncode == 0


async def test_without_authentication_the_handshake_fails(start: Start) -> None:
    api = await start(LIVE_ACCESS="off")
    with pytest.raises(ConnectionRefusedError) as refused:
        await WsClient.connect(api.url)
    assert refused.value.args == (403,)
