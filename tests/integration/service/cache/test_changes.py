"""No read gives what was told to have changed: races between loads and changes, by key and by tag."""

import asyncio

import pytest

from service.infra.cache.interface import Keep, Kept, Moment
from service.infra.cache.names import Names, domain_tag
from service.infra.cache.redis import RedisCacheStore
from tests.integration.service.cache.harness import Loads, Process, process


async def _change(one: Process, how: str) -> None:
    region = one.cache.region("users", str)
    match how:
        case "key":
            await region.invalidate("7")
        case "tag":
            await one.cache.invalidate_tags("team:1")
        case "region tag":
            await region.invalidate(tags=["team:1"])
        case "domain":
            await one.cache.clear("users")
        case "writing":
            async with region.writing("7"):
                pass
        case "writing tag":
            async with region.writing(tags=["team:1"]):
                pass


WAYS = ["key", "tag", "region tag", "domain", "writing", "writing tag"]


@pytest.mark.parametrize("how", WAYS)
async def test_an_entry_is_gone_for_all_processes(one: Process, other: Process, how: str) -> None:
    load = Loads()
    for reader in (one, other):
        await reader.cache.region("users", str).get("7", load, tags=["team:1"])
    load.value = "v2"
    await _change(one, how)
    for reader in (other, one):
        assert await reader.cache.region("users", str).get("7", load, tags=["team:1"]) == "v2"
    assert load.calls == 2


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("late", [False, True], ids=["tags known before", "tags known by the value"])
async def test_a_value_read_before_a_change_is_not_stored_after_it(
    one: Process, other: Process, how: str, late: bool
) -> None:
    tags = (lambda _: ["team:1"]) if late else ["team:1"]
    slow = Loads("old", gate=asyncio.Event())
    region = one.cache.region("users", str)
    reader = asyncio.create_task(region.get("7", slow, tags=tags))
    await slow.running.wait()  # it has read the old value
    await _change(other, how)
    assert slow.gate is not None
    slow.gate.set()
    assert await reader == "old"  # it began before the change
    assert await region.get("7", Loads("new"), tags=tags) == "new"
    assert await other.cache.region("users", str).get("7", Loads("newer"), tags=tags) == "new"


@pytest.mark.parametrize("how", WAYS)
async def test_who_asks_after_a_change_does_not_join_a_load_from_before_it(
    one: Process, other: Process, how: str
) -> None:
    slow = Loads("old", gate=asyncio.Event())
    region = one.cache.region("users", str)
    before = asyncio.create_task(region.get("7", slow, tags=["team:1"]))
    await slow.running.wait()
    await _change(other, how)
    after = asyncio.create_task(region.get("7", Loads("new"), tags=["team:1"]))
    await asyncio.sleep(0.05)
    assert slow.gate is not None
    slow.gate.set()
    assert await before == "old"
    assert await after == "new"


async def test_the_same_holds_in_bulk(one: Process, other: Process) -> None:
    region = one.cache.region("users", str)

    async def load(keys: list[str]) -> dict[str, str]:
        await other.cache.region("users", str).invalidate("b")
        await other.cache.invalidate_tags("team:c")
        return dict.fromkeys(keys, "old")

    await region.get("z", Loads())  # the domain's tag is there
    assert set(await region.many.get(["a", "b"], load)) == {"a", "b"}
    assert await region.many.get(["a", "b"]) == {"a": "old"}
    await region.many.get(["c"], load, tags=["team:c"])
    assert await region.many.get(["c"]) == {}
    mark = await region.many.mark()
    await region.invalidate("d")
    assert await region.many.set({"d": "old", "e": "old"}, mark) == 1
    assert await region.many.get(["d", "e"]) == {"e": "old"}


async def test_a_change_is_seen_also_when_the_server_evicts_what_tells_of_it(
    one: Process, other: Process
) -> None:
    region = one.cache.region("users", str)
    slow = Loads("old", gate=asyncio.Event())
    reader = asyncio.create_task(region.get("7", slow, tags=["team:1"]))
    await slow.running.wait()
    await other.cache.invalidate_tags("team:1")
    await one.raw.delete("yardstick:cache:t:team:1")
    assert slow.gate is not None
    slow.gate.set()
    assert await reader == "old"
    assert await region.get("7", Loads("new"), tags=["team:1"]) == "new"
    assert await region.get("7", Loads("newer"), tags=["team:1"]) == "new"  # not held back for longer


async def test_a_later_read_is_not_overwritten_by_an_earlier_one(one: Process) -> None:
    region = one.cache.region("users", str)
    first, second = await region.many.mark(), await region.many.mark()
    assert await region.many.set({"7": "later"}, second) == 1
    assert await region.many.set({"7": "earlier"}, first) == 0
    assert await region.many.get(["7"]) == {"7": "later"}


async def test_marks_only_grow_also_when_the_clock_goes_back(one: Process) -> None:
    region = one.cache.region("users", str)
    ahead = 10**6 * (2_000_000_000)
    await one.raw.set("yardstick:cache:clock", ahead)
    assert [await region.many.mark() for _ in range(3)] == [ahead + 1, ahead + 2, ahead + 3]


async def test_first_users_of_a_tag_do_not_shut_each_other_out(one: Process) -> None:
    region = one.cache.region("users", str)
    loads = {key: Loads(key, gate=asyncio.Event()) for key in ("a", "b")}
    readers = {k: asyncio.create_task(region.get(k, load, tags=["team:1"])) for k, load in loads.items()}
    for load in loads.values():
        await load.running.wait()
    for key in ("b", "a"):  # stored in the other order than begun
        gate = loads[key].gate
        assert gate is not None
        gate.set()
        await readers[key]
    assert await region.many.get(["a", "b"]) == {"a": "a", "b": "b"}


async def test_a_lost_tag_makes_its_entries_invalid(one: Process) -> None:
    load, region = Loads(), one.cache.region("users", str)
    await region.get("7", load, tags=["team:1"])
    await one.raw.delete("yardstick:cache:t:team:1")
    load.value = "v2"
    assert await region.get("7", load, tags=["team:1"]) == "v2"


async def test_a_tag_outlives_its_entries(one: Process) -> None:
    await one.cache.region("transactions", str).get("t", Loads(), tags=["team:1"])
    await one.cache.region("sessions", str).get("s", Loads(), tags=["team:1"])
    await one.cache.region("transactions", str).get("u", Loads(), tags=["team:1"])
    tag = await one.raw.pttl("yardstick:cache:t:team:1")
    assert tag >= await one.raw.pttl("yardstick:cache:e:sessions:s") - 5


async def test_while_a_key_is_written_reads_go_to_the_source_and_nothing_is_kept(
    one: Process, other: Process
) -> None:
    region, elsewhere = one.cache.region("users", str), other.cache.region("users", str)
    await region.get("7", Loads("old"))
    async with region.writing("7"):
        assert await elsewhere.get("7", Loads("during")) == "during"
        assert await one.names("e:users:7") == []
    assert other.reads("bypass") == 1
    assert await elsewhere.get("7", Loads("after")) == "after"
    assert await region.get("7", Loads("later")) == "after"


async def test_a_writer_that_dies_leaves_nothing_old_and_its_hold_ends(redis_database: str) -> None:
    async with process(redis_database, hold_seconds=0.3) as one:
        region = one.cache.region("users", str)
        slow = Loads("old", gate=asyncio.Event())
        reader = asyncio.create_task(region.get("7", slow))
        await slow.running.wait()
        store = RedisCacheStore(one.redis, lease=5, hold=0.3)
        await store.change(Moment.BEGIN, Names.of("users", ["7"]), "dies")
        await asyncio.sleep(0.35)
        assert slow.gate is not None
        slow.gate.set()
        await reader
        assert await one.names("e:users:7") == []
        assert await region.get("7", Loads("new")) == "new"
        assert await region.get("7", Loads("newer")) == "new"


async def test_of_two_writers_at_a_time_neither_value_is_kept(one: Process, other: Process) -> None:
    region, elsewhere = one.cache.region("users", str), other.cache.region("users", str)
    async with region.writing("7") as first:
        async with elsewhere.writing("7") as second:
            second.fill("second")
        assert await one.names("e:users:7") == []
        first.fill("first")
    assert await one.names("e:") + await one.names("h:") == []
    async with region.writing("7") as alone:
        alone.fill("alone")
    assert await elsewhere.get("7", Loads("?")) == "alone"


async def test_a_write_that_fails_keeps_nothing_and_says_so(one: Process) -> None:
    region = one.cache.region("users", str)

    async def fail() -> None:
        async with region.writing("7") as write:
            write.fill("new")
            raise LookupError

    with pytest.raises(LookupError):
        await fail()
    assert await one.names("e:users:7") == []
    assert await region.get("7", Loads("source")) == "source"


async def test_what_became_of_a_value_is_told(one: Process) -> None:
    store = RedisCacheStore(one.redis, lease=5, hold=5)
    tags = (domain_tag("users"), "t")
    mark = await store.mark()

    def entry(store: bool = True) -> Keep:
        return Keep("users", "7", mark, tags, b'"x"', 10, 9, store=store)

    assert await store.keep(entry(), entry(store=False)) == [Kept.KEPT, Kept.VERIFIED]
    await store.change(Moment.BEGIN, Names(tags=("t",)), "w")
    assert await store.keep(entry(store=False)) == [Kept.HELD]
    await store.change(Moment.END, Names(tags=("t",)), "w")
    assert await store.keep(entry(store=False)) == [Kept.CHANGED]
