"""Every type of value on a real server, pipelines, and deleting by pattern."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.infra.redis import (
    RedisCommandFault,
    RedisDecodeFault,
    RedisFault,
    RedisKeyFault,
    RedisValueTooLargeFault,
    RedisWrongTypeFault,
    Script,
    glob_escape,
)
from tests.integration.service.redis.harness import Kit

MEGABYTES_10 = 10_485_760


async def test_strings(kit: Kit) -> None:
    store = kit.store
    assert await store.get("nothing") is None
    assert await store.get_text("nothing") is None
    assert await store.get_json("nothing") is None
    await store.set("text", "grüße")
    assert await store.get("text") == "grüße".encode()
    assert await store.get_text("text") == "grüße"
    await store.set("raw", b"\x00\xff")
    assert await store.get("raw") == b"\x00\xff"
    await store.set("object", {"amount": "12.50", "tags": ["a", None]})
    assert await store.get_json("object") == {"amount": "12.50", "tags": ["a", None]}
    await store.mset({"a": 1, "b": "two"})
    assert await store.mget(["a", "missing", "b"]) == [b"1", None, b"two"]
    assert await store.set_if_absent("once", 1, ttl=5)
    assert not await store.set_if_absent("once", 2)
    assert await store.getdel("once") == b"1"
    assert await store.getdel("once") is None


async def test_a_key_is_below_the_prefix_on_the_server(kit: Kit) -> None:
    await kit.store.set("user:1", "x")
    assert await kit.store.raw.keys("*") == [b"t:user:1"]


async def test_counters(kit: Kit) -> None:
    store = kit.store
    assert [await store.incr("n"), await store.incr("n", 4), await store.decr("n", 2)] == [1, 5, 3]
    assert await store.incr_float("f", 0.5) == 0.5
    assert await store.hincr("h", "n", 3) == 3


async def test_expiry(kit: Kit) -> None:
    store = kit.store
    await store.set("k", 1, ttl=30)
    assert 29 < (await store.ttl("k") or 0) <= 30
    assert await store.persist("k")
    assert await store.ttl("k") == math.inf
    assert await store.expire("k", 0.001)
    assert not await store.expire("missing", 1)
    assert await store.ttl("missing") is None
    for ttl in (0, -1, 0.0001):
        with pytest.raises(ValueError, match="time to live"):
            store.set("k", 1, ttl=ttl)
    await store.set("k", 1)
    assert (await store.exists("k", "k", "missing"), await store.delete("k", "missing")) == (2, 1)
    assert await store.type("k") == "none"


async def test_hashes(kit: Kit) -> None:
    store = kit.store
    assert await store.hset("h", {"a": 1, "b": {"c": True}}) == 2
    assert await store.hget("h", "b") == b'{"c":true}'
    assert await store.hmget("h", ["a", "missing"]) == [b"1", None]
    assert await store.hgetall("h") == {"a": b"1", "b": b'{"c":true}'}
    assert await store.hgetall("missing") == {}
    assert (await store.hexists("h", "a"), await store.hdel("h", "a", "z"), await store.hlen("h")) == (
        True,
        1,
        1,
    )


async def test_lists(kit: Kit) -> None:
    store = kit.store
    assert await store.rpush("l", "b", "c") == 2
    assert await store.lpush("l", "a") == 3
    assert await store.lrange("l") == [b"a", b"b", b"c"]
    assert (await store.lpop("l"), await store.rpop("l"), await store.llen("l")) == (b"a", b"c", 1)
    await store.rpush("l", "d", "d")
    assert await store.lrem("l", "d") == 2
    await store.ltrim("l", 1, 0)
    assert await store.lpop("l") is None


async def test_sets(kit: Kit) -> None:
    store = kit.store
    assert await store.sadd("s", "a", "b", "a") == 2
    assert await store.smembers("s") == {b"a", b"b"}
    assert (await store.sismember("s", "a"), await store.srem("s", "a"), await store.scard("s")) == (
        True,
        1,
        1,
    )
    assert await store.zadd("z", {"late": 2.5, "early": -1}) == 2
    assert await store.zrange("z") == [(b"early", -1.0), (b"late", 2.5)]
    assert await store.zrange_by_score("z", 0, math.inf) == [(b"late", 2.5)]
    assert (await store.zscore("z", "late"), await store.zscore("z", "x")) == (2.5, None)
    assert (await store.zrem_by_score("z", -math.inf, 0), await store.zrem("z", "late")) == (1, 1)
    assert await store.zcard("z") == 0


async def test_what_nothing_is_given_to_is_refused(kit: Kit) -> None:
    store = kit.store
    for call in (store.delete, store.exists):
        with pytest.raises(ValueError, match="at least one key"):
            call()
    with pytest.raises(ValueError, match="at least one value"):
        store.hset("h", {})
    with pytest.raises(ValueError, match="at least one value"):
        store.sadd("s")


async def test_ten_megabytes_go_there_and_back_and_one_byte_more_is_not_sent(kit: Kit) -> None:
    await kit.store.set("big", b"x" * MEGABYTES_10)
    assert len(await kit.store.get("big") or b"") == MEGABYTES_10
    for call in (kit.store.set, kit.store.sadd, kit.store.lpush, kit.store.set_if_absent):
        with pytest.raises(RedisValueTooLargeFault):
            call("other", b"x" * (MEGABYTES_10 + 1))
    with pytest.raises(RedisValueTooLargeFault):
        kit.store.hset("other", {"f": b"x" * (MEGABYTES_10 + 1)})
    assert await kit.store.exists("other") == 0


@pytest.mark.parametrize("key", ["", "k" * 513, "a\nb", None, 7, b"k"])
async def test_every_way_in_checks_the_key(kit: Kit, key: str) -> None:
    store = kit.store
    await store.set("k" * 512, 1)
    for call in (
        lambda: store.get(key),
        lambda: store.mget(["fine", key]),
        lambda: store.mset({key: 1}),
        lambda: store.delete("fine", key),
        lambda: store.hgetall(key),
        lambda: store.pipeline().incr(key),
    ):
        with pytest.raises(RedisKeyFault):
            call()
    for coroutine in (
        store.run(Script("return 1"), [key]),
        store.publish(key, 1),
        store.delete_matching(key),
    ):
        with pytest.raises(RedisKeyFault):
            await coroutine


async def test_the_wrong_type_is_its_own_fault(kit: Kit) -> None:
    store = kit.store
    await store.set("text", "abc")
    for call in (store.lpush("text", 1), store.hgetall("text"), store.smembers("text"), store.incr("text")):
        with pytest.raises(RedisWrongTypeFault):
            await call
    with pytest.raises(RedisDecodeFault):
        await store.get_json("text")
    assert kit.metric("redis_faults_total", {"kind": "wrong_type"}) == 4
    assert await store.get("text") == b"abc"


async def test_a_pipeline_is_sent_in_batches_of_100(kit: Kit) -> None:
    pipe = kit.store.pipeline()
    for n in range(250):
        pipe.set(f"k{n}", n)
    count, missing = pipe.incr("n"), pipe.get_text("missing")
    with pytest.raises(RuntimeError, match="was not executed"):
        await count
    assert len(pipe) == 252
    results = await pipe.execute()
    assert len(results) == 252
    assert (await count, await missing, len(pipe)) == (1, None, 0)
    assert kit.metric("redis_command_seconds_count", {"command": "PIPELINE"}) == 3
    assert await kit.store.get("k249") == b"249"
    assert await pipe.execute() == []


async def test_one_refused_command_leaves_the_others_of_its_pipeline(kit: Kit) -> None:
    await kit.store.set("text", "abc")
    pipe = kit.store.pipeline()
    before, wrong, after = pipe.incr("n"), pipe.lpush("text", 1), pipe.incr("n")
    with pytest.raises(RedisWrongTypeFault):
        await pipe.execute()
    assert (await before, await after) == (1, 2)
    with pytest.raises(RedisWrongTypeFault):
        await wrong


async def test_an_atomic_pipeline_runs_as_one(kit: Kit) -> None:
    pipe = kit.store.pipeline(atomic=True)
    pipe.set("a", 1)
    value = pipe.get("a")
    assert await pipe.execute() == [None, b"1"]
    assert await value == b"1"
    for n in range(100):
        pipe.set("a", n)
    with pytest.raises(ValueError, match="at most 100"):
        pipe.set("a", 1)


async def test_scripts_survive_that_the_server_forgets_them(kit: Kit) -> None:
    script = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert await kit.store.run(script, ["n"], [2]) == 2
    await kit.store.raw.script_flush()
    assert await kit.store.run(script, ["n"], [3]) == 5
    with pytest.raises(RedisCommandFault):
        await kit.store.run(Script("return redis.call('NOSUCH')"), [])
    with pytest.raises(RedisCommandFault):
        await kit.store.run(Script("this is not lua"), [])


async def test_deleting_by_pattern_spares_the_rest_and_never_lists_all_keys(kit: Kit) -> None:
    raw = kit.store.raw
    await raw.mset({f"t:cache:{n}": n for n in range(1234)} | {f"other:cache:{n}": n for n in range(10)})
    await kit.store.set("user:1", 1)
    await raw.config_resetstat()
    assert len({key async for key in kit.store.scan("cache:*")}) == 1234
    assert await kit.store.delete_matching("cache:*") == 1234
    assert await kit.store.delete_matching("cache:*") == 0
    assert [key async for key in kit.store.scan()] == ["user:1"]
    assert await raw.dbsize() == 11
    used = set(await raw.info("commandstats"))
    assert {"cmdstat_scan", "cmdstat_unlink"} <= used
    assert not used & {"cmdstat_keys", "cmdstat_del"}
    assert (await raw.info("commandstats"))["cmdstat_unlink"]["calls"] >= 1234 / 100


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.text(st.sampled_from("ab*?[]\\-^"), min_size=1, max_size=4), min_size=1, max_size=8))
def test_an_escaped_text_deletes_itself_alone(redis_database: str, keys: set[str]) -> None:
    import redis  # noqa: PLC0415

    from service.infra.redis.keys import Keyspace  # noqa: PLC0415

    space = Keyspace("t.[x]:")
    with redis.Redis.from_url(redis_database) as client:
        client.flushdb()
        client.mset({space.full(key): 1 for key in keys})
        client.set("tax:decoy", 1)
        for key in keys:
            found = list(client.scan_iter(space.pattern(glob_escape(key))))
            assert [space.bare(full) for full in found] == [key]


async def test_faults_are_one_family(kit: Kit) -> None:
    with pytest.raises(RedisFault):
        await kit.store.run(Script("return redis.call('GET')"), [])
    assert kit.metric("redis_faults_total", {"kind": "command"}) == 1
