"""Readings: asked once however many want them, in time whatever hangs, and honest about both."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from observability import Metrics
from service.features.health.monitor import HealthMonitor, ProbeError, disk
from service.settings import HealthSettings


class Dependency:
    """Counts how often it is asked, and answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.running = 0
        self.answering = asyncio.Event()
        self.answering.set()
        self.error: Exception | None = None

    async def __call__(self) -> None:
        self.asked += 1
        self.running += 1
        try:
            await self.answering.wait()
            if self.error is not None:
                raise self.error
        finally:
            self.running -= 1


def monitor(
    *,
    cache: float = 0.2,
    timeout: float = 0.1,
    required: str = "database",
    **probes: Callable[[], Awaitable[object]],
) -> tuple[HealthMonitor, CollectorRegistry]:
    registry = CollectorRegistry()
    settings = HealthSettings(cache_seconds=cache, timeout_seconds=timeout)
    found = HealthMonitor(
        probes, required=frozenset({required}), settings=settings, metrics=Metrics(registry, "yardstick")
    )
    return found, registry


async def test_two_hundred_at_once_are_one_question_per_interval() -> None:
    database = Dependency()
    health, _ = monitor(database=database, cache=1)
    for _ in range(3):
        answers = await asyncio.gather(*(health.readings() for _ in range(200)))
        assert {answer["database"].status for answer in answers} == {"up"}
    assert database.asked == 1
    await asyncio.sleep(1.05)
    await asyncio.gather(*(health.readings() for _ in range(200)))
    assert database.asked == 2


async def test_a_dependency_that_hangs_is_down_in_time_and_asked_once() -> None:
    database, cache = Dependency(), Dependency()
    database.answering.clear()
    health, registry = monitor(database=database, cache_=cache, cache=0.01)
    for _ in range(3):
        started = time.perf_counter()
        readings = await health.readings()
        assert time.perf_counter() - started < 1
        assert (readings["database"].status, readings["database"].error) == ("down", "timeout")
        assert readings["cache_"].status == "up"
        assert not await health.ready()
        await asyncio.sleep(0.02)
    assert (database.asked, database.running) == (1, 1)
    assert readings["database"].latency_ms >= 300
    database.answering.set()
    await asyncio.sleep(0.02)
    assert await health.ready()
    assert database.asked == 2
    labels = {"dependency": "database", "outcome": "timeout"}
    assert (registry.get_sample_value("yardstick_health_checks_total", labels) or 0) >= 3
    labels["outcome"] = "down"
    assert registry.get_sample_value("yardstick_health_checks_total", labels) == 0


async def test_an_answer_that_comes_late_counts_when_it_comes() -> None:
    database = Dependency()
    database.answering.clear()
    health, _ = monitor(database=database, cache=0.01, timeout=1)
    assert (await health.readings())["database"].error == "timeout"
    await asyncio.sleep(0.02)
    asyncio.get_running_loop().call_later(0.05, database.answering.set)
    reading = (await health.readings())["database"]
    assert reading.status == "up"
    assert reading.latency_ms >= 1050
    assert database.asked == 1


async def test_whoever_asks_first_may_leave() -> None:
    database = Dependency()
    database.answering.clear()
    health, _ = monitor(database=database, timeout=5)
    first = asyncio.create_task(health.readings())
    others = [asyncio.create_task(health.readings()) for _ in range(5)]
    await asyncio.sleep(0.01)
    first.cancel()
    await asyncio.sleep(0.01)
    database.answering.set()
    assert [(await other)["database"].status for other in others] == ["up"] * 5
    assert database.asked == 1


async def test_the_fault_is_named_and_what_it_says_is_not() -> None:
    database = Dependency()
    database.error = ConnectionRefusedError("password=hunter2")
    health, _ = monitor(database=database)
    reading = (await health.readings())["database"]
    assert (reading.status, reading.error) == ("down", "ConnectionRefusedError")


async def test_ready_needs_what_is_required_and_no_drain() -> None:
    database, queue = Dependency(), Dependency()
    queue.error = OSError()
    health, _ = monitor(database=database, queue=queue)
    assert await health.ready()
    health.draining = True
    asked = database.asked
    assert not await health.ready()
    assert database.asked == asked


async def test_a_drain_that_begins_while_asking_is_seen() -> None:
    database = Dependency()
    database.answering.clear()
    health, _ = monitor(database=database, timeout=5)
    asking = asyncio.create_task(health.ready())
    await asyncio.sleep(0.01)
    health.draining = True
    database.answering.set()
    assert not await asking


async def test_closing_waits_for_nothing_that_hangs() -> None:
    database = Dependency()
    database.answering.clear()
    health, _ = monitor(database=database)
    asking = asyncio.create_task(health.readings())
    await asyncio.sleep(0.01)
    await health.close()
    assert database.running == 0
    with pytest.raises(asyncio.CancelledError):
        await asking
    await health.close()


async def test_the_disk(tmp_path: Path) -> None:
    await disk(HealthSettings(disk_path=tmp_path, disk_free_percent=0))()
    with pytest.raises(ProbeError):
        await disk(HealthSettings(disk_path=tmp_path, disk_free_percent=99.999))()
    with pytest.raises(FileNotFoundError):
        await disk(HealthSettings(disk_path=tmp_path / "nowhere"))()
