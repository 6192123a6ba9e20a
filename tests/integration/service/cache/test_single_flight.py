"""One miss is one load: in one process, in several, with a leader that goes away."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.service.cache.harness import Loads, Process, process
from tests.integration.service.harness import eventually

ROOT = Path(__file__).parents[4]

READER = """
import asyncio, sys
from tests.integration.service.cache.harness import process

async def main(url, start):
    async with process(url) as one:
        async def load():
            await one.raw.incr("loads")
            await asyncio.sleep(0.3)
            return "v1"
        region = one.cache.region("users", str)
        await one.raw.incr("ready")
        while not await one.raw.exists("go"):
            await asyncio.sleep(0.005)
        found = await asyncio.gather(*(region.get("7", load) for _ in range(25)))
        assert found == ["v1"] * 25, found

asyncio.run(main(*sys.argv[1:]))
"""


async def test_a_hundred_misses_are_one_load(one: Process) -> None:
    load, region = Loads(gate=asyncio.Event()), one.cache.region("users", str)
    readers = [asyncio.create_task(region.get("7", load)) for _ in range(100)]
    await one.asked(100)
    assert load.gate is not None
    load.gate.set()
    assert await asyncio.gather(*readers) == ["v1"] * 100
    assert load.calls == 1
    assert one.reads("miss") == 1
    assert one.reads("miss") + one.reads("shared") + one.reads("hit") == 100


async def test_four_processes_with_25_misses_each_are_one_load(one: Process, redis_database: str) -> None:
    readers = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", READER, redis_database, "x", cwd=ROOT, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]

    async def all_ready() -> bool:
        return int(await one.raw.get("ready") or 0) == 4

    await eventually(all_ready)
    await one.raw.set("go", 1)
    for reader in readers:
        _, errors = await reader.communicate()
        assert reader.returncode == 0, errors.decode()
    assert int(await one.raw.get("loads") or 0) == 1


async def test_a_value_that_is_not_kept_is_still_one_load(one: Process) -> None:
    load, region = Loads("pending", gate=asyncio.Event()), one.cache.region("users", str)
    readers = [asyncio.create_task(region.get("7", load, keep=lambda _: False)) for _ in range(100)]
    await one.asked(100)
    assert load.gate is not None
    load.gate.set()
    assert await asyncio.gather(*readers) == ["pending"] * 100
    assert load.calls == 1


async def test_an_error_is_shared_and_the_next_read_tries_again(one: Process) -> None:
    gate, calls = asyncio.Event(), 0

    async def fail() -> str:
        nonlocal calls
        calls += 1
        await gate.wait()
        raise LookupError("source")

    region = one.cache.region("users", str)
    readers = [asyncio.create_task(region.get("7", fail)) for _ in range(50)]
    await one.asked(50)
    gate.set()
    found = await asyncio.gather(*readers, return_exceptions=True)
    assert [type(error) for error in found] == [LookupError] * 50
    assert calls == 1
    assert await region.get("7", Loads()) == "v1"


async def test_the_load_goes_on_when_its_first_reader_is_cancelled(one: Process) -> None:
    load, region = Loads(gate=asyncio.Event()), one.cache.region("users", str)
    leader = asyncio.create_task(region.get("7", load))
    await load.running.wait()
    follower = asyncio.create_task(region.get("7", load))
    await one.asked(2)
    leader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leader
    assert load.gate is not None
    load.gate.set()
    assert await follower == "v1"
    assert load.calls == 1


async def test_a_dead_processs_lease_holds_others_up_no_longer_than_it_lives(redis_database: str) -> None:
    async with process(redis_database, lease_seconds=0.4) as one:
        await one.raw.set("yardstick:cache:l:users:7", "dead.1", px=300)
        load, region = Loads(), one.cache.region("users", str)
        async with asyncio.timeout(2):
            assert await region.get("7", load) == "v1"
        assert await one.names("e:users:7")
        # One that does not end is waited for as long as a lease lives, and then the source is asked.
        await one.raw.set("yardstick:cache:l:users:8", "hangs.1", px=60_000)
        async with asyncio.timeout(2):
            assert await asyncio.gather(*(region.get("8", load) for _ in range(10))) == ["v1"] * 10
        assert one.reads("bypass") == 10
