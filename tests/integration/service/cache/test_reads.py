"""What a read gives: entries, misses, what is not kept, what cannot be read, many at a time."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
import pytest
from pydantic import BaseModel

from service.infra.cache import (
    BulkTooLargeError,
    CacheKeyError,
    EntryTooLargeError,
    UnencodableError,
    UnknownDomainError,
)
from tests.integration.service.cache.harness import Loads, Process, process
from tests.integration.service.harness import eventually


class User(BaseModel):
    name: str
    born: datetime | None = None


async def test_the_second_read_is_a_hit_in_every_process(one: Process, other: Process) -> None:
    load = Loads(User(name="Ada"))
    for reader in (one, one, other):
        found = await reader.cache.region("users", User).get("7", load)
        assert found == User(name="Ada")
    assert load.calls == 1
    assert (one.reads("miss"), one.reads("hit"), other.reads("hit")) == (1, 1, 1)
    assert one.metric("load_seconds_count", domain="users") == 1


async def test_a_life_is_the_domains_shortened_by_the_jitter_only(redis_database: str) -> None:
    async with process(redis_database, users_seconds=100, ttl_jitter=0.2) as one:
        region = one.cache.region("users", str)
        mark = await region.many.mark()
        await region.many.set({str(n): "x" for n in range(50)}, mark)
        lives = [await one.raw.pttl(f"yardstick:cache:e:users:{n}") for n in range(50)]
    assert all(79_000 < life <= 100_000 for life in lives)
    assert max(lives) - min(lives) > 5_000


async def test_an_entry_ends_with_its_life(redis_database: str) -> None:
    async with process(redis_database, users_seconds=1, ttl_jitter=0) as one:
        load, region = Loads(), one.cache.region("users", str)
        await region.get("7", load)
        await asyncio.sleep(1.05)
        await region.get("7", load)
    assert load.calls == 2


async def test_near_its_end_an_entry_is_served_and_renewed_once(redis_database: str) -> None:
    async with process(redis_database, ttl_jitter=0) as one:
        load, region = Loads(), one.cache.region("users", str)
        await region.get("7", load)
        await one.raw.hset("yardstick:cache:e:users:7", "f", 0)  # so near it is
        load.value, load.gate = "v2", asyncio.Event()
        assert await asyncio.gather(*(region.get("7", load) for _ in range(20))) == ["v1"] * 20
        load.gate.set()

        async def renewed() -> bool:
            return await region.get("7", load) == "v2"

        await eventually(renewed)
    assert load.calls == 2


async def test_what_does_not_exist_is_remembered_for_a_short_time(redis_database: str) -> None:
    async with process(redis_database, negative_seconds=1) as one:
        load, region = Loads(None), one.cache.region("users", str)
        assert [await region.get("7", load) for _ in range(3)] == [None] * 3
        assert (load.calls, one.reads("negative")) == (1, 2)
        await asyncio.sleep(1.05)
        load.value = "born"
        assert await region.get("7", load) == "born"


async def test_without_negative_caching_every_read_asks(redis_database: str) -> None:
    async with process(redis_database, negative_seconds=0) as one:
        load, region = Loads(None), one.cache.region("users", str)
        for _ in range(3):
            assert await region.get("7", load) is None
    assert load.calls == 3


async def test_what_may_not_be_kept_is_loaded_each_time(one: Process) -> None:
    load, region = Loads("pending"), one.cache.region("users", str)
    for _ in range(3):
        assert await region.get("7", load, keep=lambda value: value == "final") == "pending"
    load.value = "final"
    for _ in range(3):
        assert await region.get("7", load, keep=lambda value: value == "final") == "final"
    assert load.calls == 4


@pytest.mark.parametrize(
    "spoil",
    [
        ["HSET", "v", "{not json"],
        ["HSET", "v", '{"name": 7}'],
        ["HSET", "m", "x"],
        ["HSET", "f", "soon"],
        ["HSET", "t", ""],
        ["HDEL", "v"],
        ["HDEL", "t"],
        ["type"],
    ],
    ids=str,
)
async def test_a_corrupt_entry_is_a_miss_counted_and_replaced(one: Process, spoil: list[str]) -> None:
    load, region = Loads(User(name="Ada")), one.cache.region("users", User)
    await region.get("7", load)
    name = "yardstick:cache:e:users:7"
    if spoil == ["type"]:
        await one.raw.delete(name)
        await one.raw.set(name, "text")
    else:
        await one.raw.execute_command(spoil[0], name, *spoil[1:])
    assert await region.get("7", load) == User(name="Ada")
    assert load.calls == 2
    assert await region.get("7", load) == User(name="Ada")
    assert load.calls == 2
    if spoil != ["HSET", "t", ""]:  # without tags it is invalid, as if they had changed
        assert one.metric("corrupt_total", domain="users") == 1


async def test_a_corrupt_entry_near_its_end_is_loaded_by_who_would_have_renewed_it(one: Process) -> None:
    load, region = Loads("v1"), one.cache.region("users", str)
    await region.get("7", load)
    await one.raw.hset("yardstick:cache:e:users:7", mapping={"f": "0", "v": "{"})
    load.value = "v2"
    assert await asyncio.wait_for(region.get("7", load), 2) == "v2"


async def test_a_loaded_value_over_the_limit_is_given_and_not_kept(redis_database: str) -> None:
    async with process(redis_database, entry_limit_bytes=2000) as one:
        region = one.cache.region("users", str)
        load = Loads("x" * 1998)  # and two quotes
        assert await region.get("fits", load) == load.value
        assert await one.names("e:users:fits")
        load.value = "x" * 1999
        for _ in range(2):
            assert await region.get("large", load) == load.value
        assert await one.names("e:users:large") == []
        assert one.metric("refused_total", domain="users", reason="too_large") == 2
        with pytest.raises(EntryTooLargeError):
            await region.many.set({"large": "x" * 1999}, await region.many.mark())


async def test_an_entry_of_five_megabytes_comes_back(one: Process) -> None:
    text = "x" * (5_242_880 - 2)
    load, region = Loads(text), one.cache.region("users", str)
    assert await region.get("7", load) == text
    assert await region.get("7", load) == text
    assert load.calls == 1


async def test_a_value_that_is_not_of_its_type_is_given_and_not_kept(one: Process) -> None:
    region = one.cache.region("users", User)
    load = Loads({"no": object()})
    assert await region.get("7", load) is load.value
    assert one.metric("refused_total", domain="users", reason="unencodable") == 1
    with pytest.raises(UnencodableError):
        await region.many.set({"7": object()}, await region.many.mark())  # type: ignore[dict-item]


async def test_an_error_of_the_load_reaches_the_caller_and_leaves_nothing_behind(one: Process) -> None:
    async def fail() -> str:
        raise LookupError("source")

    region = one.cache.region("users", str)
    with pytest.raises(LookupError):
        await region.get("7", fail)
    assert await one.names("e:") + await one.names("l:") == []
    assert await asyncio.wait_for(region.get("7", Loads()), 1) == "v1"


async def test_keys_of_every_kind_are_different_entries(one: Process) -> None:
    region = one.cache.region("users", str)
    keys = ["a", "A", "a b", "a\nb", "ä", "*", "a" * 300, "a" * 301, "\ud800", "sha256~x", "~users", "a=b"]
    for key in keys:
        await region.get(key, Loads(key.encode("utf-8", "surrogatepass").hex()))
    for key in keys:
        assert await region.get(key, Loads("?")) == key.encode("utf-8", "surrogatepass").hex()
    assert len(await one.names("e:users")) == len(keys)
    wrongs: list[Any] = ["", 7, None]
    for wrong in wrongs:
        with pytest.raises(CacheKeyError):
            await region.get(wrong, Loads())


async def test_an_unknown_domain_is_refused(one: Process) -> None:
    with pytest.raises(UnknownDomainError, match="permissions"):
        one.cache.region("nope", str)
    with pytest.raises(UnknownDomainError, match="permissions"):
        await one.cache.clear("nope")


async def test_a_thousand_keys_in_one_call_and_not_one_more(one: Process) -> None:
    calls: list[list[str]] = []

    async def load(keys: list[str]) -> Mapping[str, int]:
        calls.append(keys)
        return {key: int(key) for key in keys if key != "13"}

    region = one.cache.region("users", int)
    keys = [str(n) for n in range(1000)]
    expected = {key: int(key) for key in keys if key != "13"}
    assert await region.many.get(keys, load) == expected
    assert await region.many.get([*keys, "7"], load) == expected  # twice the same is one key
    assert await region.many.get(keys) == expected
    assert [len(call) for call in calls] == [1000]
    assert (one.reads("hit"), one.reads("negative"), one.reads("miss")) == (1998, 2, 1000)
    with pytest.raises(BulkTooLargeError):
        await region.many.get([*keys, "1000"], load)
    with pytest.raises(BulkTooLargeError):
        await region.many.set({str(n): n for n in range(1001)}, 1)
    assert await region.many.get([], load) == {}
    assert await region.many.set({}, 1) == 0


async def test_in_bulk_a_corrupt_entry_is_loaded_again(one: Process) -> None:
    async def load(keys: list[str]) -> Mapping[str, str]:
        return dict.fromkeys(keys, "new")

    region = one.cache.region("users", str)
    await region.many.set({"a": "old", "b": "old"}, await region.many.mark())
    await one.raw.hset("yardstick:cache:e:users:b", "v", "{")
    assert await region.many.get(["a", "b"], load) == {"a": "old", "b": "new"}
    assert orjson.loads((await one.raw.hget("yardstick:cache:e:users:b", "v")) or b"") == "new"
