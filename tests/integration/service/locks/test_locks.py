"""One lock: who has it, how long, what its loss does to the block, and what Redis' faults make of it."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path

import pytest

from compose.native import Stack
from service.infra.locks import Lock, LockLostError, LockNotAcquiredError, Locks
from service.infra.redis import RedisKeyTooLongFault, RedisUnavailableFault
from service.settings import LockSettings
from tests.integration.service.redis.harness import Kit, lossy, opened

DEFAULTS = LockSettings.model_validate({})


async def free(kit: Kit, name: str = "transaction:1") -> bool:
    return await kit.store.exists(f"lock:{name}") == 0


async def test_one_at_a_time_and_nobody_twice(locks: Locks, kit: Kit) -> None:
    inside = most = done = 0

    async def work() -> None:
        nonlocal inside, most, done
        async with locks.hold("transaction:1", retries=1000, retry_delay=0.005):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.002)
            inside -= 1
            done += 1

    await asyncio.gather(*(work() for _ in range(30)))
    assert (most, done) == (1, 30)
    assert await free(kit)
    assert kit.metric("locks_acquired_total", {"lock": "transaction"}) == 30
    assert kit.metric("locks_contended_total", {"lock": "transaction"}) == 29
    assert kit.metric("lock_wait_seconds_count", {"lock": "transaction"}) == 30
    assert kit.metric("lock_hold_seconds_count", {"lock": "transaction"}) == 30


async def test_a_lock_that_is_held_is_409_after_the_retries(locks: Locks, kit: Kit) -> None:
    async with locks.hold("transaction:1") as lock:
        started = time.monotonic()
        with pytest.raises(LockNotAcquiredError) as raised:
            async with locks.hold("transaction:1"):
                pytest.fail("two holders")
        waited = time.monotonic() - started
        # Ten pauses of 50 ms, give or take half.
        assert waited >= 0.25
        assert lock.remaining > 0
        async with locks.hold("transaction:2"):
            pass
    assert (raised.value.status, raised.value.code) == (409, "locked")
    assert raised.value.headers == {"Retry-After": "1"}
    assert "transaction:1" not in raised.value.message
    assert kit.metric("redis_command_seconds_count", {"command": "EVALSHA"}) >= 11
    assert kit.metric("locks_refused_total", {"lock": "transaction"}) == 1


@pytest.mark.parametrize("ttl", [0, 0.999, 300.1, -1, float("nan"), float("inf")])
async def test_a_ttl_outside_of_1_to_300_s_is_refused(locks: Locks, ttl: float) -> None:
    with pytest.raises(ValueError, match="1 to 300"):
        async with locks.hold("transaction:1", ttl=ttl):
            pytest.fail("held")


async def test_other_wrong_arguments_are_refused(locks: Locks) -> None:
    for wrong in ({"retries": -1}, {"retry_delay": -0.1}):
        with pytest.raises(ValueError, match="must not be negative"):
            async with locks.hold("transaction:1", **wrong):
                pytest.fail("held")
    with pytest.raises(RedisKeyTooLongFault):
        async with locks.hold("x" * 508):
            pytest.fail("held")


async def test_a_lock_is_renewed_for_as_long_as_it_is_held(locks: Locks, kit: Kit) -> None:
    async with locks.hold("transaction:1", ttl=2) as lock:
        for _ in range(14):
            await asyncio.sleep(0.2)
            lock.check()
            assert lock.remaining > 0.3
            assert (await kit.store.ttl("lock:transaction:1") or 0) > 0.3
    assert await free(kit)


async def test_what_is_not_renewed_is_free_after_its_time_to_live(locks: Locks, kit: Kit) -> None:
    async with locks.hold("transaction:1", ttl=1, cancel=False):
        assert 0.3 < (await kit.store.ttl("lock:transaction:1") or 0) <= 1


@pytest.mark.parametrize("taken", [False, True])
async def test_a_lost_lock_ends_the_block_where_it_waits(locks: Locks, kit: Kit, *, taken: bool) -> None:
    seen: list[Lock | str] = []

    async def block() -> None:
        async with locks.hold("transaction:1", ttl=1) as lock:
            seen.append(lock)
            if taken:
                await kit.store.set("lock:transaction:1", "somebody else", ttl=60)
            else:
                await kit.store.delete("lock:transaction:1")
            await asyncio.sleep(30)
            seen.append("reached")

    with pytest.raises(LockLostError) as raised:
        await block()
    (lock,) = seen
    assert isinstance(lock, Lock)
    assert raised.value.status == 503
    assert lock.lost.is_set()
    assert lock.remaining == 0
    with pytest.raises(LockLostError):
        lock.check()
    assert kit.metric("locks_lost_total", {"lock": "transaction"}) == 1
    # What is somebody else's stays.
    assert await free(kit) is not taken
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0.01)


async def test_without_cancel_the_block_goes_on_and_hears_of_it(locks: Locks, kit: Kit) -> None:
    seen = []

    async def block() -> None:
        async with locks.hold("transaction:1", ttl=1, cancel=False) as lock:
            await kit.store.delete("lock:transaction:1")
            await asyncio.wait_for(lock.lost.wait(), 5)
            seen.append("reached")

    with pytest.raises(LockLostError):
        await block()
    assert seen == ["reached"]


async def test_a_loss_is_noticed_at_the_end_of_a_block_that_never_waits(locks: Locks, kit: Kit) -> None:
    with pytest.raises(LockLostError):
        async with locks.hold("transaction:1", ttl=30):
            await kit.store.delete("lock:transaction:1")
    with pytest.raises(LockLostError, match="not renewed in time"):
        async with locks.hold("transaction:1", ttl=1):
            time.sleep(1.1)  # noqa: ASYNC251 - a process that stands still
    await asyncio.sleep(0.01)
    assert kit.metric("locks_lost_total", {"lock": "transaction"}) == 2


async def test_the_block_s_own_error_is_passed_on(locks: Locks, kit: Kit) -> None:
    with pytest.raises(KeyError):
        async with locks.hold("transaction:1"):
            raise KeyError("mine")
    assert await free(kit)

    async def block() -> None:
        async with locks.hold("transaction:1", ttl=1, cancel=False) as lock:
            await kit.store.delete("lock:transaction:1")
            await lock.lost.wait()
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await block()


async def test_a_cancellation_from_outside_stays_one_and_releases(locks: Locks, kit: Kit) -> None:
    entered = asyncio.Event()

    async def work() -> None:
        async with locks.hold("transaction:1"):
            entered.set()
            await asyncio.sleep(30)

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await free(kit)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05), locks.hold("transaction:1"):
            await asyncio.sleep(30)
    assert await free(kit)


async def test_a_cancellation_while_waiting_leaves_nothing_behind(locks: Locks, kit: Kit) -> None:
    for pause in (0, 0.0005, 0.001, 0.002):
        task = asyncio.create_task(locks.hold("transaction:1").__aenter__())
        await asyncio.sleep(pause)
        if not task.done():
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            assert await free(kit)
        else:
            await kit.store.delete("lock:transaction:1")


async def test_a_swallowed_cancellation_still_is_a_lost_lock(locks: Locks, kit: Kit) -> None:
    async def block() -> None:
        async with locks.hold("transaction:1", ttl=1):
            await kit.store.delete("lock:transaction:1")
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(30)

    with pytest.raises(LockLostError):
        await block()
    await asyncio.sleep(0.01)


async def test_fences_grow_over_expiry_names_and_a_server_that_forgot_everything(
    locks: Locks, kit: Kit
) -> None:
    fences = []
    for name in ("transaction:1", "transaction:2", "transaction:1", "report"):
        async with locks.hold(name) as lock:
            fences.append(lock.fence)
    await kit.store.raw.flushdb()
    async with locks.hold("transaction:1") as lock:
        fences.append(lock.fence)
    # A server whose clock is an hour behind what was given out.
    await kit.store.set("lock-fence", fences[-1] + 3_600_000_000)
    for _ in range(2):
        async with locks.hold("transaction:1") as lock:
            fences.append(lock.fence)
    assert fences == sorted(set(fences))
    assert fences[-1] < 2**53
    assert await kit.store.ttl("lock-fence") == float("inf")


async def test_an_answer_that_is_lost_costs_neither_the_lock_nor_its_release(
    redis_database: str, tmp_path: Path
) -> None:
    async with lossy(redis_database) as way, opened(way.url, tmp_path, retry_delay_ms=5) as kit:
        locks = Locks(kit.store, DEFAULTS, kit.telemetry)
        async with locks.hold("transaction:1"):
            pass
        way.lose(b"EVALSHA", times=1)
        async with locks.hold("transaction:1") as lock:
            assert lock.remaining > 0
            way.lose(b"EVALSHA", times=1)
        assert way.lost == 2
        assert await free(kit)
        # It gave up asking: whatever became of the question, nobody has to wait for it to expire.
        way.lose(b"EVALSHA", times=4)
        with pytest.raises(RedisUnavailableFault):
            async with locks.hold("transaction:1"):
                pytest.fail("held")
        assert await free(kit)
        assert kit.metric("locks_lost_total", {"lock": "transaction"}) == 0


async def test_redis_away_is_503(tmp_path: Path) -> None:
    async with opened("redis://127.0.0.1:1/0", tmp_path, retries=0) as kit:
        with pytest.raises(RedisUnavailableFault) as raised:
            async with Locks(kit.store, DEFAULTS, kit.telemetry).hold("transaction:1"):
                pytest.fail("held")
        assert raised.value.status == 503


async def test_redis_killed_under_the_lock(own: Stack, tmp_path: Path) -> None:
    async with opened(own.endpoints()["redis"], tmp_path, retries=0, command_timeout_seconds=0.5) as kit:
        locks = Locks(kit.store, DEFAULTS, kit.telemetry)
        # A block that ends before the time to live had the lock throughout.
        async with locks.hold("transaction:1", ttl=30):
            await asyncio.to_thread(own.kill, "redis")
        await asyncio.to_thread(own.start, "redis")
        await asyncio.to_thread(own.wait_ready, "redis")

        async def block() -> None:
            async with locks.hold("transaction:2", ttl=1):
                await asyncio.to_thread(own.kill, "redis")
                await asyncio.sleep(30)

        started = time.monotonic()
        with pytest.raises(LockLostError, match="not renewed in time"):
            await block()
        assert time.monotonic() - started < 5
        assert kit.metric("locks_renewals_failed_total", {"lock": "transaction"}) >= 1


async def test_a_short_outage_is_survived(own: Stack, tmp_path: Path) -> None:
    url = own.endpoints()["redis"]
    async with lossy(url) as way, opened(way.url, tmp_path, retries=0) as kit:
        locks = Locks(kit.store, DEFAULTS, kit.telemetry)
        async with locks.hold("transaction:1", ttl=2) as lock:
            way.lose(b"EVALSHA", times=2)
            await asyncio.sleep(3)
            lock.check()
        assert way.lost == 2
        assert kit.metric("locks_renewals_failed_total", {"lock": "transaction"}) == 2


async def test_the_kinds_in_the_metrics_are_bounded(locks: Locks, kit: Kit) -> None:
    for n in range(60):
        async with locks.hold(f"kind{n}:1"):
            pass
    assert kit.metric("locks_acquired_total", {"lock": "_other"}) == 10
