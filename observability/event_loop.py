"""How late the event loop runs: the first sign of a blocked or saturated process."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from observability.metrics import LAG_BUCKETS
from observability.setup import Telemetry


class EventLoopMonitor:
    """Observes, `interval` seconds apart, how much later than asked a sleeping task was woken."""

    def __init__(self, telemetry: Telemetry, interval: float = 0.25) -> None:
        self._lag = telemetry.metrics.histogram(
            "event_loop_lag_seconds", "Lateness of a timer on the event loop.", buckets=LAG_BUCKETS
        )
        self._enabled = telemetry.enabled
        self._interval = interval
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start in the running loop. A second start does nothing."""
        if self._task is None and self._enabled:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="event-loop-monitor")

    async def stop(self) -> None:
        """Stop; harmless when not started."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._interval
            await asyncio.sleep(self._interval)
            self._lag.observe(max(0.0, loop.time() - due))
