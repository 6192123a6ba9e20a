"""The sliding window itself, on a real Redis: against a model, over processes, clocks and changed rates."""

import asyncio
import subprocess
import sys
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from service.infra.rate_limit.interface import RateLimiterError, Window
from service.infra.rate_limit.redis import BUCKETS, RedisRateLimiter
from service.settings import Rate

START = 1_790_000_000_000_000
SECOND = 1_000_000
PREFIX = "t:rate:"


class Clock:
    """Microseconds, set by the test."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


@pytest.fixture
async def redis(redis_database: str) -> AsyncIterator["Redis"]:
    client = Redis.from_url(redis_database)
    yield client
    await client.aclose()


def window(rate: str, name: str = "ip:203.0.113.9") -> Window:
    return Window(name, Rate.parse(rate))


async def held(redis: "Redis", rate: Rate, name: str = "ip:203.0.113.9") -> dict[bytes, bytes]:
    return await cast("Awaitable[dict[bytes, bytes]]", redis.hgetall(f"{PREFIX}{name}:{rate.seconds}"))


RATES = st.builds(Rate, st.integers(1, 12), st.sampled_from([1, 7, 60, 3600, 86_400]))
# Steps in shares of the window, so that most of them matter whatever its length.
STEPS = st.lists(
    st.one_of(
        st.just(0.0), st.floats(0, 0.05), st.floats(0, 1.2), st.sampled_from([1 / 60, 0.5, 1.0, 61 / 60, 3])
    ),
    min_size=10,
    max_size=60,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rate=RATES, steps=STEPS)
@example(rate=Rate(1, 1), steps=[0.0, 0.999999, 0.000001, 1 / 60])
@example(rate=Rate(3, 3600), steps=[0.0, 0.9, 0.0, 0.0, 0.2, 0.8, 0.1, 0.1])
async def test_against_a_list_of_every_request(redis: "Redis", rate: Rate, steps: list[float]) -> None:
    """Never over the limit in any span; refused only where the list of the window and a sixtieth is full."""
    await redis.flushdb()
    clock = Clock()
    limiter = RedisRateLimiter(redis, prefix=PREFIX, clock=clock)
    length = rate.seconds * SECOND
    bucket = -(-length // BUCKETS)
    admitted: list[int] = []
    for step in steps:
        clock.now += round(step * length)
        decision = await limiter.hit([Window("k", rate)])
        [state] = decision.windows
        in_window = len(admitted) - bisect_left(admitted, clock.now - length + 1)
        if decision.allowed:
            assert in_window < rate.limit
            admitted.append(clock.now)
        else:
            assert (
                len(admitted) - bisect_left(admitted, clock.now - BUCKETS * bucket - bucket + 1) >= rate.limit
            )
            assert state.remaining == 0
            assert decision.retry_after == state.seconds
            # Not a microsecond earlier, and then it is.
            now = clock.now
            clock.now = now + round(state.seconds * SECOND) - 1
            assert not (await limiter.hit([Window("k", rate)])).allowed
            clock.now = now
        assert (
            0
            <= state.remaining
            <= rate.limit - (len(admitted) - bisect_left(admitted, clock.now - length + 1))
        )
        assert 0 < state.seconds <= (BUCKETS + 1) * bucket / SECOND
        fields = await held(redis, rate, "k")
        assert len(fields) <= BUCKETS + 1 + 3
        assert int(fields[b"n"]) == sum(int(v) for k, v in fields.items() if k.isdigit()) <= rate.limit
        assert 0 < await redis.pttl(f"{PREFIX}k:{rate.seconds}") <= (BUCKETS + 1) * bucket / 1000 + 2
    if not decision.allowed:
        clock.now += round(decision.retry_after * SECOND)
        assert (await limiter.hit([Window("k", rate)])).allowed


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rates=st.lists(RATES, min_size=2, max_size=3, unique_by=lambda r: r.seconds),
    steps=st.lists(st.floats(0, 30), min_size=1, max_size=30),
)
async def test_several_windows_admit_together_or_not_at_all(
    redis: "Redis", rates: list[Rate], steps: list[float]
) -> None:
    await redis.flushdb()
    clock = Clock()
    limiter = RedisRateLimiter(redis, prefix=PREFIX, clock=clock)
    windows = [Window("k", rate) for rate in rates]
    for step in steps:
        clock.now += round(step * SECOND)
        before = [await held(redis, rate, "k") for rate in rates]
        decision = await limiter.hit(windows)
        after = [await held(redis, rate, "k") for rate in rates]
        assert decision.allowed is (decision.retry_after == 0)
        for rate, old, new in zip(rates, before, after, strict=True):
            live = sum(int(v) for k, v in old.items() if k.isdigit() and k in new)
            if decision.allowed:
                assert int(new[b"n"]) >= 1
            else:
                assert int(new.get(b"n", 0)) == live
            assert int(new.get(b"n", 0)) <= rate.limit
        if not decision.allowed:
            assert any(state.remaining == 0 for state in decision.windows)


async def test_the_burst_at_the_edge_that_a_weighted_counter_lets_through(redis: "Redis") -> None:
    clock = Clock()
    limiter = RedisRateLimiter(redis, prefix=PREFIX, clock=clock)
    rate = window("100/minute")

    async def burst() -> int:
        return sum([(await limiter.hit([rate])).allowed for _ in range(150)])

    assert await burst() == 100
    clock.now += 59 * SECOND
    assert await burst() == 0
    clock.now += 2 * SECOND
    assert await burst() == 100


@contextmanager
def processes(count: int, *arguments: str) -> Iterator[list[subprocess.Popen[str]]]:
    """Hammering processes that have been let loose together."""
    repository = Path(__file__).parents[3]
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.integration.service.hammer", *arguments],
            cwd=repository, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(count)
    ]  # fmt: skip
    try:
        for process in started:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in started:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def admissions(started: list[subprocess.Popen[str]]) -> list[list[tuple[int, int]]]:
    found = []
    for process in started:
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 0
        found.append([(int(a), int(b)) for a, b in (line.split() for line in out.splitlines())])
    return found


async def test_processes_share_one_window(redis_database: str) -> None:
    with processes(4, redis_database, "100/minute", "100", "30") as started:
        each = await asyncio.to_thread(admissions, started)
    assert sum(map(len, each)) == 100
    print(f"4 processes, 400 requests at once, 100/minute: {[len(part) for part in each]} admitted")


async def test_processes_share_a_window_that_slides(redis_database: str) -> None:
    limit, span = 40, 1_000_000_000
    with processes(4, redis_database, f"{limit}/second", "1000000", "4") as started:
        each = await asyncio.to_thread(admissions, started)
    # A request was admitted somewhere between its two times: only what must lie in one span is counted.
    times = sorted(time for part in each for time in part)
    most = max(sum(1 for b, a in times if b >= start and a <= start + span) for start, _ in times)
    assert most <= limit
    # In 4 s four windows fit, and a fifth at the end; each is used up at once.
    assert 3 * limit <= len(times) <= 5 * limit
    print(f"4 processes for 4 s, {limit}/second: {len(times)} admitted, at most {most} in any second")


async def test_a_lowered_rate_holds_at_once_and_says_when(redis: "Redis") -> None:
    clock = Clock()
    limiter = RedisRateLimiter(redis, prefix=PREFIX, clock=clock)
    for _ in range(10):
        clock.now += 60 * SECOND
        assert (await limiter.hit([window("10/hour")])).allowed
    refused = await limiter.hit([window("3/hour")])
    assert not refused.allowed
    assert refused.windows[0].remaining == 0
    # Eight of the ten have to leave.
    clock.now += round(refused.retry_after * SECOND) - 1
    assert not (await limiter.hit([window("3/hour")])).allowed
    clock.now += 1
    assert (await limiter.hit([window("3/hour")])).allowed


async def test_a_clock_set_back_shuts_nobody_out(redis: "Redis") -> None:
    clock = Clock()
    limiter = RedisRateLimiter(redis, prefix=PREFIX, clock=clock)
    for _ in range(5):
        assert (await limiter.hit([window("5/hour")])).allowed
    clock.now -= 86_400 * SECOND
    refused = await limiter.hit([window("5/hour")])
    assert not refused.allowed
    assert refused.retry_after <= 3660
    clock.now += 3660 * SECOND
    assert (await limiter.hit([window("5/hour")])).allowed


async def test_every_key_ends_by_itself(redis: "Redis") -> None:
    limiter = RedisRateLimiter(redis, prefix=PREFIX)
    for n in range(50):
        await limiter.hit([window("1/hour", f"ip:{n}"), window("1/second", f"ip:{n}")])
        await limiter.hit([window("1/hour", f"ip:{n}"), window("1/second", f"ip:{n}")])
    keys = [key async for key in redis.scan_iter(match=f"{PREFIX}*")]
    assert len(keys) == 100
    assert all([0 < await redis.pttl(key) <= 3_661_000 for key in keys])
    await asyncio.sleep(1.1)
    assert len([key async for key in redis.scan_iter(match=f"{PREFIX}*:1")]) == 0


async def test_a_large_window_stays_small(redis: "Redis") -> None:
    clock = Clock()
    limiter = RedisRateLimiter(redis, prefix=PREFIX, clock=clock)
    rate = window("1000000/hour")
    for _ in range(2000):
        clock.now += 3 * SECOND
        await limiter.hit([rate])
    [key] = [key async for key in redis.scan_iter(match=f"{PREFIX}*")]
    assert await cast("Awaitable[int]", redis.hlen(key)) <= 64
    assert await redis.memory_usage(key) < 5000


async def test_a_restarted_server_has_forgotten_the_script_and_nothing_breaks(redis: "Redis") -> None:
    limiter = RedisRateLimiter(redis, prefix=PREFIX)
    await limiter.hit([window("5/hour")])
    await redis.script_flush()
    assert (await limiter.hit([window("5/hour")])).windows[0].remaining == 3


async def test_a_key_of_another_kind_is_a_fault(redis: "Redis") -> None:
    await redis.set(f"{PREFIX}ip:203.0.113.9:3600", "not a window")
    with pytest.raises(RateLimiterError, match="ResponseError"):
        await RedisRateLimiter(redis, prefix=PREFIX).hit([window("5/hour")])
