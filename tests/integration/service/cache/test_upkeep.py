"""Warming, memory pressure and statistics."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from tests.integration.service.cache.harness import Loads, Process, process
from tests.integration.service.harness import eventually


async def test_one_process_warms_the_higher_priority_first(one: Process, other: Process) -> None:
    order: list[str] = []

    def load(name: str) -> Callable[[], Awaitable[dict[str, str]]]:
        async def values() -> dict[str, str]:
            order.append(name)
            return {f"{name}{n}": name for n in range(3)}

        return values

    async def fails() -> dict[str, str]:
        raise LookupError

    for each in (one, other):
        each.cache.warm_up("recent", each.cache.region("transactions", str), load("transactions"))
        each.cache.warm_up("broken", each.cache.region("settings", str), fails)
        each.cache.warm_up("roles", each.cache.region("permissions", str), load("permissions"))
    warmed = await asyncio.gather(*(each.cache.warm() for each in (one, other, one)))
    assert sorted(warmed, key=len) == [[], [], ["roles", "recent"]]
    assert order == ["permissions", "transactions"]
    for domain in ("permissions", "transactions"):
        assert await other.cache.region(domain, str).get(f"{domain}1", Loads("?")) == domain
    assert (
        one.metric("warmed_total", domain="permissions") + other.metric("warmed_total", domain="permissions")
        == 3
    )


async def test_warming_does_not_bring_back_what_changed_while_it_read(one: Process, other: Process) -> None:
    async def values() -> dict[str, str]:
        await other.cache.region("users", str).invalidate("a")
        return {"a": "old", "b": "old"}

    one.cache.warm_up("users", one.cache.region("users", str), values)
    await one.cache.warm()
    assert await one.cache.region("users", str).many.get(["a", "b"]) == {"b": "old"}


async def test_the_next_turn_comes_when_the_interval_is_over(redis_database: str) -> None:
    async with process(redis_database, warm_seconds=0.3) as one:
        load = Loads({"a": "1"})
        one.cache.warm_up("users", one.cache.region("users", str), load)
        started = time.monotonic()
        one.cache.start()

        async def warmed() -> bool:
            return load.calls >= 4

        await eventually(warmed)
        assert time.monotonic() - started >= 0.9


async def test_short_of_memory_low_priorities_go_and_are_not_filled(redis_database: str) -> None:
    async with process(redis_database, memory_high=0.9, memory_low=0.8) as one:
        low, high = one.cache.region("transactions", str), one.cache.region("users", str)
        mark = await low.many.mark()
        await low.many.set({str(n): "x" * 10_000 for n in range(300)}, mark)
        await high.many.set({str(n): "x" * 1000 for n in range(20)}, mark)
        assert await one.cache.relieve() == 0  # there is no limit
        used = (await one.raw.info("memory"))["used_memory"]
        await one.raw.config_set("maxmemory", used + 50_000)
        try:
            evicted = await one.cache.relieve()
            assert evicted == one.metric("evictions_total", domain="transactions") > 0
            assert len(await one.names("e:users:")) == 20
            left = len(await one.names("e:transactions:"))
            assert left == 300 - evicted
            await one.raw.config_set("maxmemory", used // 8)  # nothing that may go would be enough
            await one.cache.relieve()
            assert len(await one.names("e:users:")) == 20
            assert await low.get("new", Loads()) == "v1"
            assert await one.names("e:transactions:") == []
            assert one.metric("refused_total", domain="transactions", reason="pressure") == 1
        finally:
            await one.raw.config_set("maxmemory", 0)
        await one.cache.relieve()
        await low.get("new", Loads())
        assert await one.names("e:transactions:") == ["e:transactions:new"]


async def test_statistics_add_up_over_processes(one: Process, other: Process) -> None:
    for reader in (one, other):
        region = reader.cache.region("users", str)
        await region.get("a", Loads())
        await region.get("b", Loads(None))
    await other.cache.report()
    found = {domain.domain: domain for domain in (await one.cache.statistics()).domains}
    users = found["users"]
    assert (users.hits, users.misses, users.hit_rate, users.errors, users.evictions) == (2, 2, 0.5, 0, 0)
    assert users.outcomes["negative"] == 1
    assert found["settings"].hit_rate is None
    await one.cache.report()
    await one.cache.report()  # nothing new: nothing is counted twice
    again = {domain.domain: domain for domain in (await other.cache.statistics()).domains}
    assert again == found
    assert (await other.cache.statistics()).scope == "cluster"
