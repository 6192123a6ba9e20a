"""A process that acknowledged writes behind is killed: nothing of them is lost."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg

from tests.integration.service.cache.harness import process
from tests.integration.service.cache.test_strategies import TABLE, Table

ROOT = Path(__file__).parents[4]

# It acknowledges 50 writes, says so, and hands them over one by one, slowly, until it is killed.
WRITER = """
import asyncio, sys
import asyncpg
from tests.integration.service.cache.harness import process
from tests.integration.service.cache.test_strategies import Table

class Slow(Table):
    async def store(self, key, value, version=0):
        await super().store(key, value, version)
        print("stored", key, flush=True)
        await asyncio.sleep(0.05)

async def main(redis, postgres):
    pool = await asyncpg.create_pool(postgres, min_size=1, max_size=2)
    async with process(redis) as one:
        behind = one.cache.write_behind("settings", str, Slow(pool, one))
        await asyncio.gather(*(behind.put(f"k{n}", f"v{n}") for n in range(50)))
        print("acknowledged", flush=True)
        await behind.run()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_what_a_killed_process_acknowledged_reaches_the_source(
    redis_database: str, empty_database: str
) -> None:
    pool = await asyncpg.create_pool(empty_database, min_size=1, max_size=2)
    await pool.execute(TABLE)
    writer = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITER, redis_database, empty_database, cwd=ROOT, stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    async with asyncio.timeout(30):
        seen = ""
        while "stored k" not in seen:
            line = (await writer.stdout.readline()).decode()
            assert line, "the writer ended by itself"
            seen += line
    assert "acknowledged" in seen
    os.kill(writer.pid, signal.SIGKILL)
    assert await writer.wait() == -signal.SIGKILL
    before: int = await pool.fetchval("SELECT count(*) FROM setting")
    assert 0 < before < 50
    async with process(redis_database) as one:
        behind = one.cache.write_behind("settings", str, Table(pool, one))
        # Everything is readable at once, also what the dead process was about to hand over.
        assert [await behind.get(f"k{n}") for n in range(50)] == [f"v{n}" for n in range(50)]
        # Its claims are given up after a lease; here the clock is put forward instead of waiting for it.
        names = await one.raw.zrange("yardstick:cache:d:settings", 0, -1)
        await one.raw.zadd("yardstick:cache:d:settings", dict.fromkeys(names, 0))
        await behind.flush()
        assert await one.names("w:") + await one.names("d:") == []
    rows = await pool.fetch("SELECT key, value FROM setting")
    assert {row["key"]: row["value"] for row in rows} == {f"k{n}": f"v{n}" for n in range(50)}
    await pool.close()
