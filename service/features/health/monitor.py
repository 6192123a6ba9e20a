"""Asks the dependencies, briefly cached, so that probes cannot load them."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from observability import Metrics, get_logger
from service.settings import HealthSettings

log = get_logger(__name__)

Probe = Callable[[], Awaitable[object]]
"""Returns when the dependency answered; raises when it did not."""

_PAUSES = (0.5, 5.0)


class ProbeError(Exception):
    """A dependency answers, and is not well."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One dependency at one time; latency in milliseconds, `error` the kind of fault."""

    status: Literal["up", "down"]
    latency_ms: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Question:
    """A probe under way, and when it began. The task gives what is wrong or None, and when it was known."""

    task: asyncio.Task[tuple[str | None, float]]
    asked: float = field(default_factory=time.perf_counter)


class HealthMonitor:
    """Readings of all dependencies. Ready: the required ones are up and the process is not draining.

    However many ask and however soon they leave, each dependency is asked once in `HEALTH_CACHE_SECONDS`.
    One that does not answer within `HEALTH_TIMEOUT_SECONDS` is down, and is not asked again while the last
    question still hangs.
    """

    def __init__(
        self,
        probes: Mapping[str, Probe],
        *,
        required: frozenset[str],
        settings: HealthSettings,
        metrics: Metrics,
    ) -> None:
        self._probes = dict(probes)
        self._required = required
        self._cache = settings.cache_seconds
        self._timeout = settings.timeout_seconds
        self._readings: dict[str, Reading] = {}
        self._read_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._open: dict[str, _Question] = {}
        self._checks = metrics.counter(
            "health_checks", "Questions to a dependency, by what came of them.", ("dependency", "outcome")
        )
        self._seconds = metrics.histogram(
            "health_check_seconds", "Time a dependency took to answer.", ("dependency",)
        )
        for name in self._probes:
            for outcome in ("up", "down", "timeout"):
                self._checks.labels(name, outcome)  # present from zero on, for rates and alerts
        self.draining = False

    async def readings(self) -> dict[str, Reading]:
        """By name, at most `HEALTH_CACHE_SECONDS` old."""
        if self._refreshing is None and time.monotonic() - self._read_at <= self._cache:
            return self._readings
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="health")
        # Whoever asked first may leave before the answer, the others still wait for it.
        await asyncio.shield(self._refreshing)
        return self._readings

    async def ready(self) -> bool:
        if self.draining:
            return False
        return self.well(await self.readings()) and not self.draining

    def well(self, readings: Mapping[str, Reading]) -> bool:
        """Whether every required dependency is up."""
        return all(readings[name].status == "up" for name in self._required)

    async def await_dependencies(self) -> None:
        """Ask until everything is up, for the log: a process that starts too early says what it waits for."""
        pause = _PAUSES[0]
        while True:
            down = {name: r.error for name, r in (await self.readings()).items() if r.status == "down"}
            if not down:
                log.info("dependencies.up")
                return
            log.warning("dependencies.down", waitingFor=down, retryIn=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSES[1])

    async def close(self) -> None:
        """Give up the questions that are still open, before what they ask is closed."""
        tasks: list[asyncio.Task[Any]] = [q.task for q in self._open.values() if not q.task.done()]
        if self._refreshing is not None:
            tasks.append(self._refreshing)
        for task in tasks:
            task.cancel()
        if tasks:
            # One that hangs may let go late: it must not keep the process from ending.
            await asyncio.wait(tasks, timeout=self._timeout)

    async def _refresh(self) -> None:
        try:
            found = await asyncio.gather(*(self._read(name) for name in self._probes))
            self._take(dict(zip(self._probes, found, strict=True)))
        finally:
            self._refreshing = None

    async def _read(self, name: str) -> Reading:
        question = self._open.get(name)
        if question is None or question.task.done():
            question = _Question(asyncio.create_task(_ask(self._probes[name]), name=f"health-{name}"))
            self._open[name] = question
        await asyncio.wait({question.task}, timeout=self._timeout)
        # One that is late is left to its own limits, and asked no second time meanwhile: neither a driver
        # that lets go slowly nor a thread that cannot be cancelled piles up.
        error, known = question.task.result() if question.task.done() else ("timeout", time.perf_counter())
        seconds = known - question.asked
        outcome = {None: "up", "timeout": "timeout"}.get(error, "down")
        self._checks.labels(name, outcome).inc()
        self._seconds.labels(name).observe(seconds)
        return Reading("up" if error is None else "down", round(seconds * 1000, 3), error)

    def _take(self, readings: dict[str, Reading]) -> None:
        for name, reading in readings.items():
            before = self._readings.get(name)
            if before is not None and before.status != reading.status:
                write = log.info if reading.status == "up" else log.error
                write(f"dependency.{reading.status}", dependency=name, error=reading.error)
        self._readings, self._read_at = readings, time.monotonic()


async def _ask(probe: Probe) -> tuple[str | None, float]:
    error = None
    try:
        await probe()
    except TimeoutError:
        error = "timeout"
    except Exception as fault:  # noqa: BLE001 - a probe's fault is its reading
        error = type(fault).__name__
    return error, time.perf_counter()


def disk(settings: HealthSettings) -> Probe:
    """Fails when the file system of `HEALTH_DISK_PATH` is nearly full or away."""

    async def probe() -> None:
        # In a thread: a network file system that hangs must not stop the event loop.
        usage = await asyncio.to_thread(shutil.disk_usage, settings.disk_path)
        if usage.free < usage.total * settings.disk_free_percent / 100:
            raise ProbeError

    return probe
