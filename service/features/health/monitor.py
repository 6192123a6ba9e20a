"""Asks the dependencies, briefly cached, so that probes cannot load them."""

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from observability import get_logger

log = get_logger(__name__)

Probe = Callable[[], Awaitable[None]]
"""Returns when the dependency answered; raises when it did not."""

CACHE_SECONDS = 1.0
PROBE_SECONDS = 2.0
_PAUSES = (0.5, 5.0)
_DISK_FREE_SHARE = 0.05


class ProbeError(Exception):
    """A dependency answers, and is not well."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One dependency at one time; latency in milliseconds, `error` the kind of fault."""

    status: Literal["up", "down"]
    latency_ms: float
    error: str | None = None


class HealthMonitor:
    """Readings of all dependencies. Ready: the required ones are up and the process is not draining."""

    def __init__(self, probes: Mapping[str, Probe], *, required: frozenset[str]) -> None:
        self._probes = dict(probes)
        self._required = required
        self._readings: dict[str, Reading] = {}
        self._read_at = float("-inf")
        self._lock = asyncio.Lock()
        self.draining = False

    async def readings(self) -> dict[str, Reading]:
        """By name, at most CACHE_SECONDS old. However many ask, each dependency is asked once."""
        async with self._lock:
            if time.monotonic() - self._read_at > CACHE_SECONDS:
                found = await asyncio.gather(*(_read(probe) for probe in self._probes.values()))
                self._take(dict(zip(self._probes, found, strict=True)))
        return self._readings

    async def ready(self) -> bool:
        if self.draining:
            return False
        return self.well(await self.readings())

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

    def _take(self, readings: dict[str, Reading]) -> None:
        for name, reading in readings.items():
            before = self._readings.get(name)
            if before is not None and before.status != reading.status:
                write = log.info if reading.status == "up" else log.error
                write(f"dependency.{reading.status}", dependency=name, error=reading.error)
        self._readings, self._read_at = readings, time.monotonic()


async def _read(probe: Probe) -> Reading:
    started = time.perf_counter()
    error: str | None = None
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await probe()
    except TimeoutError:
        error = "timeout"
    except Exception as fault:  # noqa: BLE001 - a probe's fault is its reading
        error = type(fault).__name__
    return Reading("up" if error is None else "down", round((time.perf_counter() - started) * 1000, 3), error)


async def disk() -> None:
    """Fails when the working directory's file system is nearly full."""
    usage = shutil.disk_usage(Path.cwd())
    if usage.free < usage.total * _DISK_FREE_SHARE:
        raise ProbeError("disk nearly full")
