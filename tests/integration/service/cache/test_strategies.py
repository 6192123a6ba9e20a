"""The order of effects of the five strategies, on real Redis and PostgreSQL.

The source writes down what Redis held at the moment it was called, so that the order is seen and not assumed.
"""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from service.errors import UnavailableError
from service.infra.cache import CacheAside, ReadThrough, WriteAround, WriteThrough
from tests.integration.service.cache.harness import Process, process

TABLE = "CREATE TABLE setting (key text PRIMARY KEY, value text NOT NULL, version bigint NOT NULL DEFAULT 0)"
ENTRY, HOLD, PENDING = "e:settings:theme", "h:e:settings:theme", "w:settings"
UPSERT = """
    INSERT INTO setting (key, value, version) VALUES ($1, $2, $3)
    ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = excluded.version
    WHERE setting.version <= excluded.version
"""


class Table:
    """A source in PostgreSQL. `seen` has each call, with the cache's keys of Redis at that moment."""

    def __init__(self, pool: asyncpg.Pool, one: Process) -> None:
        self._pool = pool
        self._one = one
        self.seen: list[tuple[str, set[str]]] = []
        self.gate: asyncio.Event | None = None
        self.fails = False

    async def held(self) -> set[str]:
        return {ENTRY, HOLD, PENDING} & set(await self._one.names())

    async def row(self) -> str | None:
        found: str | None = await self._pool.fetchval("SELECT value FROM setting WHERE key = 'theme'")
        return found

    async def load(self, key: str) -> str | None:
        self.seen.append(("load", await self.held()))
        found: str | None = await self._pool.fetchval("SELECT value FROM setting WHERE key = $1", key)
        return found

    async def store(self, key: str, value: str, version: int = 0) -> None:
        self.seen.append(("store", await self.held()))
        if self.gate is not None:
            await self.gate.wait()
        if self.fails:
            raise asyncpg.PostgresError
        await self._pool.execute(UPSERT, key, value, version)


@pytest.fixture
async def pool(empty_database: str) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(empty_database, min_size=1, max_size=4) as found:
        await found.execute(TABLE)
        await found.execute("INSERT INTO setting VALUES ('theme', 'light')")
        yield found


@pytest.fixture
def table(pool: asyncpg.Pool, one: Process) -> Table:
    return Table(pool, one)


NOTHING: set[str] = set()


async def test_cache_aside(one: Process, table: Table) -> None:
    """Read: cache, the caller's load, cache filled. Write: entry gone, source, still gone until a read."""
    aside = CacheAside(one.cache.region("settings", str))
    for _ in range(2):
        assert await aside.get("theme", lambda: table.load("theme")) == "light"
    assert table.seen == [("load", NOTHING)]
    assert await table.held() == {ENTRY}
    await aside.put("theme", lambda: table.store("theme", "dark"))
    assert table.seen[1:] == [("store", {HOLD})]
    assert await table.held() == NOTHING
    assert await aside.get("theme", lambda: table.load("theme")) == "dark"
    assert table.seen[2:] == [("load", NOTHING)]


async def test_read_through(one: Process, table: Table) -> None:
    """Read: cache, the source that the cache knows, cache filled; later ones touch the source no more."""
    through = ReadThrough(one.cache.region("settings", str), table)
    assert [await through.get("theme") for _ in range(3)] == ["light"] * 3
    assert table.seen == [("load", NOTHING)]
    assert await table.held() == {ENTRY}


async def test_write_around(one: Process, table: Table) -> None:
    """Write: entry gone, source, cache not filled. The next read fills it."""
    around = WriteAround(one.cache.region("settings", str), table)
    await around.get("theme")
    await around.put("theme", "dark")
    assert table.seen[1:] == [("store", {HOLD})]
    assert (await table.row(), await table.held()) == ("dark", NOTHING)
    assert await around.get("theme") == "dark"
    assert (table.seen[2:], await table.held()) == ([("load", NOTHING)], {ENTRY})


async def test_write_through(one: Process, table: Table) -> None:
    """Write: entry gone, source, entry there, acknowledged. The next read is a hit."""
    through = WriteThrough(one.cache.region("settings", str), table)
    await through.get("theme")
    await through.put("theme", "dark")
    assert table.seen[1:] == [("store", {HOLD})]
    assert (await table.row(), await table.held()) == ("dark", {ENTRY})
    assert await through.get("theme") == "dark"
    assert table.seen[2:] == []


async def test_write_through_that_fails_leaves_the_old_value_to_be_loaded(one: Process, table: Table) -> None:
    through = WriteThrough(one.cache.region("settings", str), table)
    await through.get("theme")
    table.fails = True
    with pytest.raises(asyncpg.PostgresError):
        await through.put("theme", "dark")
    assert await table.held() == NOTHING
    assert await through.get("theme") == "light"


async def test_two_write_throughs_at_once_agree_with_the_source(
    one: Process, other: Process, pool: asyncpg.Pool
) -> None:
    first, second = Table(pool, one), Table(pool, other)
    first.gate = asyncio.Event()
    slow = asyncio.create_task(WriteThrough(one.cache.region("settings", str), first).put("theme", "slow"))
    while not first.seen:  # noqa: ASYNC110 - the source tells that it was called
        await asyncio.sleep(0.005)
    await WriteThrough(other.cache.region("settings", str), second).put("theme", "quick")
    first.gate.set()
    await slow
    truth = await first.row()
    assert truth == "slow"
    assert await ReadThrough(other.cache.region("settings", str), second).get("theme") == truth


async def test_write_behind(one: Process, other: Process, table: Table) -> None:
    """Write: pending in Redis, acknowledged, source untouched; all processes read it; the source later."""
    behind = one.cache.write_behind("settings", str, table)
    assert await behind.get("theme") == "light"
    await behind.put("theme", "dark")
    assert (await table.row(), await table.held()) == ("light", {PENDING})
    for reader in (behind, other.cache.write_behind("settings", str, table)):
        assert await reader.get("theme") == "dark"
    assert [name for name, _ in table.seen] == ["load"]
    assert await other.cache.write_behind("settings", str, table).flush() == 1
    assert table.seen[1:] == [("store", {PENDING})]
    assert (await table.row(), await table.held()) == ("dark", NOTHING)
    assert await behind.get("theme") == "dark"
    assert await behind.flush() == 0


async def test_of_many_writes_behind_the_source_sees_the_last(one: Process, table: Table) -> None:
    behind = one.cache.write_behind("settings", str, table)
    versions = [await behind.put("theme", f"v{n}") for n in range(20)]
    assert versions == sorted(set(versions))
    await behind.flush()
    assert [name for name, _ in table.seen] == ["store"]
    assert await table.row() == "v19"


async def test_a_write_during_the_hand_over_of_an_older_one_is_handed_over_next(
    one: Process, other: Process, table: Table
) -> None:
    behind = one.cache.write_behind("settings", str, table)
    await behind.put("theme", "older")
    table.gate = asyncio.Event()
    flushing = asyncio.create_task(behind.flush())
    while not table.seen:  # noqa: ASYNC110 - the source tells that it was called
        await asyncio.sleep(0.005)
    await behind.put("theme", "newer")
    table.gate.set()
    await flushing
    assert (await table.row(), await behind.get("theme")) == ("older", "newer")
    assert await other.cache.write_behind("settings", str, table).flush() == 1
    assert await table.row() == "newer"


async def test_a_late_hand_over_does_not_undo_a_newer_one(
    one: Process, other: Process, pool: asyncpg.Pool
) -> None:
    """Two processes hand over the same key; the older write, held up, comes last."""
    stalled, quick = Table(pool, one), Table(pool, other)
    behind, elsewhere = (
        one.cache.write_behind("settings", str, stalled),
        other.cache.write_behind("settings", str, quick),
    )
    await behind.put("theme", "older")
    stalled.gate = asyncio.Event()
    flushing = asyncio.create_task(behind.flush())
    while not stalled.seen:  # noqa: ASYNC110 - the source tells that it was called
        await asyncio.sleep(0.005)
    await behind.put("theme", "newer")
    await one.raw.zadd("yardstick:cache:d:settings", {"theme": 0})  # the stalled one's lease is over
    assert await elsewhere.flush() == 1
    stalled.gate.set()
    await flushing
    assert await stalled.row() == "newer"
    assert await behind.get("theme") == "newer"


async def test_a_load_from_before_a_write_behind_is_not_kept_after_its_hand_over(
    one: Process, table: Table
) -> None:
    behind, region = one.cache.write_behind("settings", str, table), one.cache.region("settings", str)
    mark = await region.many.mark()
    await behind.put("theme", "dark")
    assert await region.many.set({"theme": "light"}, mark) == 0
    during = await region.many.mark()
    assert (
        await region.many.set({"theme": "light"}, during) == 0
    )  # read from the source, which lacks the write
    await behind.flush()
    assert await region.many.set({"theme": "light"}, during) == 0
    assert await behind.get("theme") == "dark"


async def test_a_source_that_refuses_is_tried_again_and_loses_nothing(one: Process, table: Table) -> None:
    behind = one.cache.write_behind("settings", str, table)
    await behind.put("theme", "dark")
    table.fails = True
    assert await behind.flush() == 0
    assert await behind.flush() == 0  # not due yet
    assert [name for name, _ in table.seen] == ["store"]
    assert await behind.get("theme") == "dark"
    assert one.metric("write_behind_total", domain="settings", outcome="failed") == 1
    assert one.metric("write_behind_pending", domain="settings") == 1
    table.fails = False
    await one.raw.zadd("yardstick:cache:d:settings", {"theme": 0})
    assert await behind.flush() == 1
    assert await table.row() == "dark"


async def test_too_many_waiting_writes_are_refused(redis_database: str, pool: asyncpg.Pool) -> None:
    async with process(redis_database, write_behind_limit=2) as one:
        behind = one.cache.write_behind("settings", str, Table(pool, one))
        await behind.put("a", "1")
        await behind.put("b", "1")
        with pytest.raises(UnavailableError):
            await behind.put("c", "1")
        await behind.put("a", "2")  # one that waits already may be replaced
        assert await behind.flush() == 2
        await behind.put("c", "1")
