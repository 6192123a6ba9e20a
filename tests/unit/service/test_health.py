"""Readings: cached, asked once however many want them, and what they make of readiness."""

import asyncio

import pytest

from service.features.health import monitor as module
from service.features.health.monitor import HealthMonitor


class Dependency:
    """Up or down, and how often it was asked."""

    def __init__(self) -> None:
        self.fails: Exception | None = None
        self.asked = 0

    async def probe(self) -> None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails


@pytest.fixture
def database() -> Dependency:
    return Dependency()


@pytest.fixture
def queue() -> Dependency:
    return Dependency()


@pytest.fixture
def monitor(database: Dependency, queue: Dependency) -> HealthMonitor:
    probes = {"database": database.probe, "queue": queue.probe}
    return HealthMonitor(probes, required=frozenset({"database"}))


async def test_a_hundred_probes_ask_once(monitor: HealthMonitor, database: Dependency) -> None:
    await asyncio.gather(*(monitor.readings() for _ in range(100)))
    assert database.asked == 1


async def test_only_the_required_decide_on_readiness(
    monitor: HealthMonitor, database: Dependency, queue: Dependency, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CACHE_SECONDS", -1)
    assert await monitor.ready()
    queue.fails = ConnectionError("secret host")
    assert await monitor.ready()
    reading = (await monitor.readings())["queue"]
    assert (reading.status, reading.error) == ("down", "ConnectionError")
    database.fails = ConnectionError()
    assert not await monitor.ready()
    database.fails = None
    assert await monitor.ready()
    monitor.draining = True
    assert not await monitor.ready()


async def test_a_probe_that_hangs_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PROBE_SECONDS", 0.01)

    async def hang() -> None:
        await asyncio.sleep(60)

    readings = await HealthMonitor({"a": hang}, required=frozenset()).readings()
    assert (readings["a"].status, readings["a"].error) == ("down", "timeout")


async def test_a_nearly_full_disk_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    from collections import namedtuple  # noqa: PLC0415

    usage = namedtuple("usage", "total used free")  # noqa: PYI024
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(100, 97, 3))
    readings = await HealthMonitor({"disk": module.disk}, required=frozenset()).readings()
    assert readings["disk"].error == "ProbeError"
