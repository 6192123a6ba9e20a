"""The guard keeps its time and its count whatever its limiter does."""

import asyncio
from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from observability import Metrics
from service.infra.rate_limit.guard import RateLimitGuard
from service.infra.rate_limit.interface import Decision, RateLimiterError, Window, WindowState
from service.settings import Rate, RateLimitSettings

RATE = Rate(5, 60)
WINDOWS = [Window("k", RATE)]


class Limiter:
    """Admits; on demand it fails, or hangs and does not let itself be cancelled."""

    def __init__(self) -> None:
        self.asked = 0
        self.fails = False
        self.hangs = False
        self.let_go = asyncio.Event()

    async def hit(self, windows: Sequence[Window]) -> Decision:
        self.asked += 1
        if self.fails:
            raise RateLimiterError("gone")
        if self.hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                await self.let_go.wait()
                raise RateLimiterError("late") from None
        return Decision(True, tuple(WindowState(window.rate, 1, 1.0) for window in windows))


def guarded(**changes: object) -> tuple[RateLimitGuard, Limiter, CollectorRegistry]:
    registry, limiter = CollectorRegistry(), Limiter()
    settings = RateLimitSettings.model_validate(
        {"timeout_ms": 50, "breaker_faults": 3, "breaker_seconds": 1} | changes
    )
    return RateLimitGuard(limiter, settings, Metrics(registry, "yardstick")), limiter, registry


def counted(registry: CollectorRegistry, outcome: str) -> float | None:
    return registry.get_sample_value("yardstick_rate_limit_decisions_total", {"outcome": outcome})


async def late_ones_ended(guard: RateLimitGuard, limiter: Limiter) -> None:
    limiter.let_go.set()
    async with asyncio.timeout(10):
        while guard._late:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.005)


async def test_it_waits_no_longer_for_a_limiter_that_cannot_be_cancelled() -> None:
    guard, limiter, registry = guarded()
    limiter.hangs = True
    assert await asyncio.gather(*(guard.decide(WINDOWS) for _ in range(20))) == [None] * 20
    assert counted(registry, "failed_open") == 20
    assert guard._late
    await late_ones_ended(guard, limiter)


async def test_after_some_faults_it_asks_one_at_a_time() -> None:
    guard, limiter, registry = guarded()
    limiter.fails = True
    for _ in range(50):
        assert await guard.decide(WINDOWS) is None
    assert limiter.asked == 3
    assert registry.get_sample_value("yardstick_rate_limit_breaker_open") == 1
    await asyncio.sleep(1.05)
    limiter.fails, limiter.hangs = False, True
    assert await asyncio.gather(*(guard.decide(WINDOWS) for _ in range(50))) == [None] * 50
    assert limiter.asked == 4
    await asyncio.sleep(1.05)
    limiter.hangs = False
    assert await guard.decide(WINDOWS) is not None
    assert await guard.decide(WINDOWS) is not None
    assert registry.get_sample_value("yardstick_rate_limit_breaker_open") == 0
    assert (counted(registry, "allowed"), counted(registry, "failed_open")) == (2, 100)


async def test_a_fault_between_successes_does_not_open_it() -> None:
    guard, limiter, _ = guarded()
    for _ in range(10):
        limiter.fails = not limiter.fails
        await guard.decide(WINDOWS)
    assert limiter.asked == 10


async def test_a_client_that_leaves_takes_its_question_along() -> None:
    guard, limiter, registry = guarded(timeout_ms=5000)
    limiter.hangs = True
    asking = asyncio.create_task(guard.decide(WINDOWS))
    await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert len(guard._late) == 1
    await late_ones_ended(guard, limiter)
    assert counted(registry, "failed_open") == 0
