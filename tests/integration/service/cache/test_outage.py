"""Redis stopped, hung, full: reads go to the source without waiting, changes are owed, all heals alone."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.native import Stack
from service.errors import UnavailableError
from service.infra.cache import WriteThrough
from tests.integration.service.cache.harness import Loads, Process, process
from tests.integration.service.harness import eventually


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A Redis of this module's own, to be stopped."""
    with Stack(tmp_path_factory.mktemp("outage"), only=("redis",)) as stack:
        yield stack


@pytest.fixture
async def url(server: Stack) -> str:
    server.start("redis")
    server.wait_ready("redis")
    found = server.endpoints()["redis"]
    async with process(found) as one:
        await one.raw.flushall()
        await one.raw.config_set("maxmemory", 0)
    return found


async def closed(one: Process) -> None:
    async def look() -> bool:
        return one.metric("breaker_open") == 0

    await eventually(look)


async def test_a_stopped_redis_costs_a_request_next_to_nothing(url: str, server: Stack) -> None:
    async with process(url) as one:
        load, region = Loads(), one.cache.region("users", str)
        await region.get("7", load)
        server.stop("redis")
        started = time.monotonic()
        for _ in range(50):
            assert await region.get("7", load) == "v1"
        # A connect timeout is 10 s; a refused connection opens the breaker at once.
        assert time.monotonic() - started < 2
        assert load.calls == 51
        assert one.reads("error") == 50
        assert one.metric("breaker_open") == 1
        assert await region.many.get(["7"], _load_many) == {"7": "many"}
        assert await region.many.mark() is None
        assert await region.many.set({"7": "x"}, None) == 0
        assert (await one.cache.statistics()).scope == "instance"
        server.start("redis")
        await closed(one)
        assert await region.get("7", load) == "v1"
        assert one.reads("hit") + one.reads("miss") >= 2


async def _load_many(keys: list[str]) -> dict[str, str]:
    return dict.fromkeys(keys, "many")


async def test_a_hung_redis_costs_a_few_timeouts_and_no_more(url: str, server: Stack) -> None:
    async with process(url, timeout_ms=100, breaker_faults=3) as one:
        load, region = Loads(), one.cache.region("users", str)
        await region.get("7", load)
        pid = server.pid("redis")
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            started = time.monotonic()
            for _ in range(30):
                assert await region.get("7", load) == "v1"
            assert time.monotonic() - started < 2
            assert one.metric("faults_total", kind="timeout") == 3
        finally:
            os.kill(pid, signal.SIGCONT)
        await closed(one)
        assert await region.get("7", load) == "v1"


async def test_a_process_that_starts_without_redis_serves_and_then_caches(url: str, server: Stack) -> None:
    server.stop("redis")
    async with process(url) as one:
        load, region = Loads(), one.cache.region("users", str)
        assert await region.get("7", load) == "v1"
        server.start("redis")
        await closed(one)
        for _ in range(3):
            await region.get("7", load)
        assert load.calls == 2


async def test_without_redis_a_hundred_readers_are_two_loads_at_most(url: str, server: Stack) -> None:
    """One that runs, and one that begins after they asked: nobody gets a value older than the question."""
    server.stop("redis")
    async with process(url) as one:
        load, region = Loads("old", gate=asyncio.Event()), one.cache.region("users", str)
        first = asyncio.create_task(region.get("7", load))
        await load.running.wait()
        load.value = "new"
        others = [asyncio.create_task(region.get("7", load)) for _ in range(99)]
        await asyncio.sleep(0.1)
        assert load.gate is not None
        load.gate.set()
        assert await first == "old"
        assert await asyncio.gather(*others) == ["new"] * 99
        assert load.calls == 2
    server.start("redis")


async def test_what_changed_without_redis_is_not_served_when_it_is_back(url: str, server: Stack) -> None:
    async with process(url) as one:
        region = one.cache.region("users", str)
        for key in ("key", "tag", "written", "kept"):
            await region.get(key, Loads("old"), tags=[key])
        server.stop("redis")
        await region.invalidate("key")
        await one.cache.invalidate_tags("tag")
        source = Written()
        await WriteThrough(region, source).put("written", "new")  # no error to the client
        assert source.value == "new"
        assert one.metric("owed_changes") == 3
        server.start("redis")  # with the entries from before: they are in its append-only file
        for _ in range(20):
            for key in ("key", "tag", "written"):
                assert await region.get(key, Loads("new")) == "new"
            await asyncio.sleep(0.02)
        await closed(one)
        assert one.metric("owed_changes") == 0
        assert await region.get("kept", Loads("?")) == "old"


class Written:
    value = "old"

    async def load(self, key: str) -> str:
        return self.value

    async def store(self, key: str, value: str) -> None:
        self.value = value


async def test_more_changes_than_can_be_owed_clear_everything(
    url: str, server: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.infra.cache.changes.MOST_OWED", 10)
    async with process(url) as one:
        region = one.cache.region("users", str)
        await region.get("7", Loads("old"))
        server.stop("redis")
        for n in range(20):
            await region.invalidate(f"{n}")
        assert one.metric("owed_changes") <= 12
        server.start("redis")
        await closed(one)
        assert await region.get("7", Loads("new")) == "new"


async def test_a_write_behind_is_refused_and_not_pretended(url: str, server: Stack) -> None:
    class Source(Written):
        async def store(self, key: str, value: str, version: int = 0) -> None:
            raise AssertionError

    async with process(url) as one:
        behind = one.cache.write_behind("settings", str, Source())
        server.stop("redis")
        with pytest.raises(UnavailableError):
            await behind.put("theme", "dark")
        assert await behind.get("theme") == "old"
        server.start("redis")


async def test_a_full_redis_serves_what_it_has_and_forgets_what_it_is_told_to(url: str) -> None:
    async with process(url) as one:
        region = one.cache.region("users", str)
        await region.get("7", Loads("old"), tags=["t"])
        await region.get("8", Loads("kept"))
        await one.raw.config_set("maxmemory", 1)
        try:
            load = Loads("new")
            assert await region.get("8", load) == "kept"
            assert [await region.get("9", load) for _ in range(3)] == ["new"] * 3
            assert one.metric("breaker_open") == 0
            await one.cache.invalidate_tags("t")
            assert one.metric("owed_changes") == 0
            assert [await region.get("7", load) for _ in range(3)] == ["new"] * 3
            assert load.calls == 6
            assert await one.names("e:") == ["e:users:8"]
        finally:
            await one.raw.config_set("maxmemory", 0)
        assert await region.get("7", Loads("newer")) == "newer"


async def test_a_key_of_the_wrong_type_is_an_error_counted_and_not_raised(url: str) -> None:
    async with process(url) as one:
        await one.raw.set("yardstick:cache:w:users", "not a hash")
        region = one.cache.region("users", str)
        assert await region.get("7", Loads()) == "v1"
        assert one.metric("faults_total", kind="wrong_type") + one.metric("faults_total", kind="command") == 1


async def test_an_outage_is_a_few_lines_in_the_log(
    url: str, server: Stack, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    async with process(url) as one:
        region = one.cache.region("users", str)
        await region.get("7", Loads())
        server.stop("redis")
        for n in range(200):
            await region.get(str(n), Loads())
        server.start("redis")
        await closed(one)
    lines = [line for line in capfd.readouterr().out.splitlines() if '"cache.' in line]
    assert sum('"cache.unavailable"' in line for line in lines) == 1
    assert sum('"cache.available"' in line for line in lines) == 1
    assert len(lines) <= 5
