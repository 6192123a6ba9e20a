"""A server that is away, slow, full, or cuts the line; and that nothing runs twice unknowingly."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import APIRouter, Request
from httpx import ASGITransport, AsyncClient

from compose.native import Stack
from service.api import API_ROUTERS
from service.app import create_routes, in_layers
from service.container import open_container
from service.infra.redis import (
    RedisConnectionFault,
    RedisKeyFault,
    RedisRefusingFault,
    RedisStore,
    RedisTimeoutFault,
    RedisUnavailableFault,
    Script,
)
from service.settings import Settings
from tests.integration.service.redis.harness import Kit, lossy, opened

COUNT = Script("return redis.call('INCR', KEYS[1])")
NOWHERE = "redis://:password@127.0.0.1:1/0"


async def test_a_server_that_is_away_is_tried_four_times(tmp_path: Path) -> None:
    async with opened(NOWHERE, tmp_path, retries=3, retry_delay_ms=100) as kit:
        started = time.monotonic()
        with pytest.raises(RedisConnectionFault) as raised:
            await kit.store.incr("n")
        assert time.monotonic() - started >= 0.3
        # Nothing was sent, so that even a counter may be tried again.
        assert not raised.value.maybe_applied
        assert kit.metric("redis_retries_total") == 3
        assert kit.metric("redis_faults_total", {"kind": "connection"}) == 1


async def test_a_read_whose_answer_is_lost_is_read_again(redis_database: str, tmp_path: Path) -> None:
    async with lossy(redis_database) as way, opened(way.url, tmp_path, retry_delay_ms=1) as kit:
        await kit.store.set("k", "v")
        way.lose(b"GET", times=3)
        assert await kit.store.get("k") == b"v"
        assert (way.lost, kit.metric("redis_retries_total")) == (3, 3)
        way.lose(b"GET", times=4)
        with pytest.raises(RedisConnectionFault) as raised:
            await kit.store.get("k")
        assert raised.value.maybe_applied
        assert way.lost == 7


@pytest.mark.parametrize(
    ("command", "call", "size"),
    [
        (b"INCRBY", lambda store: store.incr("n"), lambda store: store.get("n")),
        (b"RPUSH", lambda store: store.rpush("l", "x"), lambda store: store.llen("l")),
        (b"NX", lambda store: store.set_if_absent("s", 1), lambda store: store.exists("s")),
        (b"EVALSHA", lambda store: store.run(COUNT, ["e"]), lambda store: store.get("e")),
    ],
)
async def test_what_must_not_run_twice_runs_once_and_says_that_nobody_knows(
    redis_database: str,
    tmp_path: Path,
    command: bytes,
    call: Callable[[RedisStore], object],
    size: Callable[[RedisStore], object],
) -> None:
    async with lossy(redis_database) as way, opened(way.url, tmp_path) as kit:
        await kit.store.run(COUNT, ["warm"])
        way.lose(command, times=1)
        with pytest.raises(RedisConnectionFault) as raised:
            await call(kit.store)  # type: ignore[misc]
        assert raised.value.maybe_applied
        assert way.lost == 1
        assert kit.metric("redis_retries_total") == 0
        assert await size(kit.store) in {1, b"1"}  # type: ignore[misc]


async def test_a_lost_batch_says_that_others_have_run(redis_database: str, tmp_path: Path) -> None:
    async with lossy(redis_database) as way, opened(way.url, tmp_path, retry_delay_ms=1) as kit:
        pipe = kit.store.pipeline()
        replies = [pipe.incr("n") for _ in range(150)]
        way.lose(b"t:n", times=1)
        with pytest.raises(RedisConnectionFault) as raised:
            await pipe.execute()
        assert raised.value.maybe_applied
        assert await kit.store.get("n") == b"100"
        with pytest.raises(RuntimeError, match="was not executed"):
            await replies[149]
        reads = kit.store.pipeline()
        reads.get("n")
        reads.exists("n")
        way.lose(b"EXISTS", times=1)
        assert await reads.execute() == [b"100", 1]


async def test_a_slow_server_is_a_timeout_and_its_late_answer_meets_nobody(
    redis_database: str, tmp_path: Path
) -> None:
    async with opened(redis_database, tmp_path, command_timeout_seconds=0.2, max_connections=5) as kit:
        await kit.store.mset({"a": "A", "b": "B"})
        await kit.store.raw.client_pause(2500)
        started = time.monotonic()
        with pytest.raises(RedisTimeoutFault) as raised:
            await kit.store.get("a")
        assert time.monotonic() - started < 2
        assert raised.value.maybe_applied
        assert kit.metric("redis_retries_total") == 0
        await asyncio.sleep(2.6)
        assert await asyncio.gather(*(kit.store.get("b") for _ in range(20))) == [b"B"] * 20


async def test_a_command_given_up_half_way_leaves_no_answer_behind(kit: Kit) -> None:
    await kit.store.mset({"a": "A", "b": "B"})
    slow = Script("for i = 1, 3000000 do end return redis.call('GET', KEYS[1])")
    await kit.store.run(slow, ["a"])
    for _ in range(5):
        task = asyncio.create_task(kit.store.run(slow, ["a"]))
        await asyncio.sleep(0.002)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await kit.store.get("b") == b"B"
    assert kit.metric("redis_pool_connections", {"state": "used"}) == 0


async def test_a_pool_that_is_empty_is_a_timeout(redis_database: str, tmp_path: Path) -> None:
    settings = {"max_connections": 5, "min_connections": 5, "command_timeout_seconds": 0.2}
    async with opened(redis_database, tmp_path, **settings) as kit:
        pool = kit.store.raw.connection_pool
        taken = [await pool.get_connection() for _ in range(5)]
        assert kit.metric("redis_pool_connections", {"state": "used"}) == 5
        with pytest.raises(RedisTimeoutFault, match="No connection available") as raised:
            await kit.store.incr("n")
        assert not raised.value.maybe_applied
        for connection in taken:
            await pool.release(connection)
        assert await kit.store.incr("n") == 1
        assert kit.metric("redis_pool_connections", {"state": "idle"}) == 5
        assert kit.metric("redis_pool_connections_max") == 5


async def test_a_server_killed_and_started_again(own: Stack, tmp_path: Path) -> None:
    url = own.endpoints()["redis"]
    async with opened(url, tmp_path, retry_delay_ms=10) as kit:
        kit.store.start()
        await kit.store.set("k", "v")
        stopping = asyncio.Event()
        kinds: list[str] = []

        async def work() -> None:
            while not stopping.is_set():
                try:
                    await kit.store.incr("n")
                except RedisUnavailableFault as fault:
                    kinds.append(fault.kind)
                await asyncio.sleep(0)

        workers = [asyncio.create_task(work()) for _ in range(8)]
        await asyncio.sleep(0.1)
        await asyncio.to_thread(own.kill, "redis")
        await asyncio.sleep(0.2)
        stopping.set()
        await asyncio.gather(*workers)
        assert set(kinds) == {"connection"}
        await asyncio.to_thread(own.start, "redis")
        await asyncio.to_thread(own.wait_ready, "redis")
        # The connections of before are dead; the first command after it does not notice.
        assert await kit.store.incr("after") == 1


async def test_a_server_that_is_full_or_wrongly_asked(own: Stack, tmp_path: Path) -> None:
    url = own.endpoints()["redis"]
    async with opened(url, tmp_path) as kit:
        await kit.store.raw.config_set("maxmemory", 1)
        with pytest.raises(RedisRefusingFault) as raised:
            await kit.store.set("k", "v")
        assert raised.value.status == 503
        assert await kit.store.get("k") is None
    password = url.split(":")[2].split("@")[0]
    async with opened(url.replace(password, "wrong"), tmp_path, retries=0) as kit:
        with pytest.raises(RedisConnectionFault) as refused:
            await kit.store.ping()
        assert "wrong" not in str(refused.value).replace("wrong pass", "").replace("WRONGPASS", "")


async def test_the_pool_is_filled_once_the_server_is_there(own: Stack, tmp_path: Path) -> None:
    url = own.endpoints()["redis"]
    await asyncio.to_thread(own.kill, "redis")
    async with opened(url, tmp_path) as kit:
        kit.store.start()
        await asyncio.sleep(0.1)
        assert kit.metric("redis_pool_connections", {"state": "idle"}) == 0
        await asyncio.to_thread(own.start, "redis")
        await asyncio.to_thread(own.wait_ready, "redis")
        async with asyncio.timeout(10):
            while kit.metric("redis_pool_connections", {"state": "idle"}) < 5:  # noqa: ASYNC110 - as scraped
                await asyncio.sleep(0.05)


router = APIRouter()


@router.get("/unit/read")
async def read(request: Request) -> str:
    return str(await request.app.state.container.store.get("k"))


@router.get("/unit/mistake")
async def mistake(request: Request) -> str:
    return str(await request.app.state.container.store.get(""))


async def test_a_client_of_the_api_sees_503_and_500_with_the_frame(
    configure: Callable[..., Settings], tmp_path: Path
) -> None:
    async with open_container(configure(REDIS_URL=NOWHERE), "api") as container:
        app = in_layers(create_routes(container, [*API_ROUTERS, router]), container)
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as http:
            away, wrong = await http.get("/unit/read"), await http.get("/unit/mistake")
    assert (away.status_code, away.json()["error"]["code"]) == (503, "unavailable")
    assert away.headers["retry-after"] == "2"
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (500, "internal")
    assert "127.0.0.1" not in away.text + wrong.text
    assert RedisKeyFault.kind not in wrong.text
