"""Redis goes away behind a proxy that is cut: streams stay, say so, and miss nothing that is kept."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import urlsplit

import httpx
import pytest
from redis.asyncio import Redis

from tests.integration.service.conftest import Configure
from tests.integration.service.harness import Service, running
from tests.integration.service.live.conftest import Start
from tests.integration.service.live.harness import SseClient, happened, reached


class Proxy:
    """A TCP proxy that can be cut: what is connected breaks off, what connects is refused."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._url, self._target = url, (parts.hostname, parts.port)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        """The server's URL by way of the proxy."""
        return self._url.replace(f":{self._target[1]}/", f":{self.port}/")

    async def restore(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in tuple(self._open):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(*self._target)
        self._open |= {writer, there[1]}
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))
        self._open -= {writer, there[1]}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.fixture
async def proxy(redis_database: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(redis_database)
    await proxy.restore()
    yield proxy
    await proxy.cut()


async def test_clients_are_told_and_get_the_rest_when_redis_is_back(
    start: Start, service: Service, subject: str, proxy: Proxy
) -> None:
    api = await start(REDIS_URL=proxy.url)
    client = await SseClient.connect(api.url, f"transaction.{subject}")
    await client.notice("ready")
    service.container.bus.publish(happened(subject, number=0))
    await client.until(1)
    await proxy.cut()
    assert (await client.notice("degraded")).data == {"live": False}
    assert await api.metric("yardstick_live_connected") == 0
    for number in range(1, 50):
        service.container.bus.publish(happened(subject, number=number))
    # New clients are taken too, and told; what is kept in the process serves those that come back.
    late = await SseClient.connect(api.url, f"transaction.{subject}", after=client.events[0].id)
    assert (await late.notice("ready")).data["live"] is False
    assert await late.until(1) == [0]
    await proxy.restore()
    assert await client.until(50) == list(range(50))
    assert await late.until(50) == list(range(50))
    assert client.names.count("restored") == client.names.count("degraded") == 1
    assert "reset" not in client.names + late.names
    assert await api.metric("yardstick_live_connected") == 1
    for each in (client, late):
        await each.close()


async def test_what_happens_while_the_publisher_is_cut_off_comes_once_and_in_order(
    start: Start,
    subject: str,
    proxy: Proxy,
    configure: Configure,
) -> None:
    api = await start()
    client = await SseClient.connect(api.url, f"transaction.{subject}")
    await client.notice("ready")
    async with running(configure(REDIS_URL=proxy.url)) as publisher:
        bus = publisher.container.bus
        for number in range(60):
            if number in (20, 40):
                await proxy.cut()
            bus.publish(happened(subject, number=number))
            if number in (30, 50):
                await asyncio.sleep(0.3)
                await proxy.restore()
            await asyncio.sleep(0)
        assert await client.until(60) == list(range(60))
        assert publisher.metric("yardstick_live_publish_retries_total")
        assert publisher.metric("yardstick_event_bus_dropped_total", {"subscriber": "live"}) == 0
    await client.close()


async def test_clients_of_a_stream_that_was_lost_are_told_to_look_for_themselves(
    start: Start,
    service: Service,
    subject: str,
    proxy: Proxy,
    redis_database: str,
) -> None:
    api = await start(REDIS_URL=proxy.url)
    client = await SseClient.connect(api.url, f"transaction.{subject}")
    await client.notice("ready")
    service.container.bus.publish(happened(subject, number=0))
    await client.until(1)
    await proxy.cut()
    await client.notice("degraded")
    redis = Redis.from_url(redis_database)
    await redis.flushdb()
    # An older state of the server: positions start over.
    await redis.xadd("yardstick:live", {"nothing": "known"}, id="5-0")
    await proxy.restore()
    assert (await client.notice("reset")).data == {"reason": "lost"}
    await client.notice("restored")
    await redis.delete("yardstick:live")
    await redis.aclose()
    service.container.bus.publish(happened(subject, number=1))
    assert await client.until(2) == [0, 1]
    assert client.names.count("reset") == 1
    await client.close()


async def test_entries_that_are_no_events_are_passed_by(
    start: Start, service: Service, subject: str, redis_database: str
) -> None:
    api = await start()
    client = await SseClient.connect(api.url, f"transaction.{subject}")
    await client.notice("ready")
    redis = Redis.from_url(redis_database)
    good = {"key": "k", "name": "transaction.x", "topics": f"transaction.{subject}", "body": b"{}"}
    for bad in ({"body": b"\xff"}, {"body": b"{"}, {"topics": b"\xff"}, {"name": b"\xff\xfe"}):
        await redis.xadd("yardstick:live", good | bad)
    await redis.xadd("yardstick:live", {"a": "b"})
    await redis.aclose()
    service.container.bus.publish(happened(subject, number=7))
    assert await client.until(1) == [7]
    assert await api.metric("yardstick_live_unreadable_total") == 5
    await client.close()


async def test_before_redis_was_ever_reached_a_stream_is_unavailable(
    start: Start, subject: str, proxy: Proxy
) -> None:
    await proxy.cut()
    api = await start(REDIS_URL=proxy.url)
    async with httpx.AsyncClient(base_url=api.url, timeout=20) as http:
        answer = await http.get("/v1/stream", headers={"X-User-Id": "alice"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "2"
    await proxy.restore()

    async def connected() -> bool:
        return await api.metric("yardstick_live_connected") == 1

    await reached(connected)
    client = await SseClient.connect(api.url, f"transaction.{subject}")
    await client.notice("ready")
    await client.close()
