"""The scheduler: `python -m service.scheduler`. Enqueues what is due, and serves health and metrics.

Any number may run: each firing is one job all the same.
"""

import asyncio
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from observability import Metrics, get_logger
from service.app import operated
from service.container import Container
from service.db.jobs.schedules import Fired, Schedule, Schedules, Standing
from service.errors import UnavailableError
from service.jobs import SCHEDULES
from service.process import run
from service.settings import Settings
from service.tasks import end, first_of

log = get_logger(__name__)

_OUTAGE_PAUSE = (0.2, 5.0)
_SHORTEST_PAUSE = 0.1
"""Between two looks at what somebody else is firing right now."""


class SchedulerMetrics:
    """Per schedule. The gauges say the same in each scheduler, whichever of them fires."""

    def __init__(self, schedules: Sequence[Schedule[Any]], metrics: Metrics) -> None:
        names = ("schedule",)
        self.firings = metrics.counter("schedule_firings", "Jobs enqueued by a schedule.", names)
        self.missed = metrics.counter(
            "schedule_missed",
            "Firings that nobody was there for, by what becomes of them.",
            (*names, "policy"),
        )
        self.due = metrics.gauge(
            "schedule_due_seconds", "How long the schedule has been due; 0 while it is not.", names
        )
        self.last = metrics.gauge(
            "schedule_last_firing_timestamp_seconds", "The time for which it last fired; 0: never.", names
        )
        self._names = [one.name for one in schedules]
        for one in schedules:  # present from zero on, for rates and alerts
            self.firings.labels(one.name)
            self.missed.labels(one.name, one.missed)

    def fired(self, found: Fired) -> None:
        self.firings.labels(found.schedule).inc(len(found.enqueued))
        self.missed.labels(found.schedule, found.policy).inc(found.missed)

    def stand(self, found: Standing) -> None:
        self.due.labels(found.schedule).set(max(0.0, -found.due_in))
        self.last.labels(found.schedule).set(found.last_fired.timestamp() if found.last_fired else 0)

    def unknown(self) -> None:
        for name in self._names:
            self.due.labels(name).set(float("nan"))


class Scheduler:
    """Fires what is due, one transaction each, and sleeps until something is. Rides out outages."""

    def __init__(self, schedules: Schedules, metrics: SchedulerMetrics, *, poll: float) -> None:
        """`poll`: longest pause, in seconds, after which it looks though nothing should be due."""
        self._schedules = schedules
        self._metrics = metrics
        self._poll = poll
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until `stop`; the firing in hand is finished."""
        outage = _OUTAGE_PAUSE[0]
        reconciled = False
        while not self._stopping.is_set():
            try:
                if not reconciled:
                    await self._schedules.reconcile()
                    reconciled = True
                pause = await self.turn()
                outage = _OUTAGE_PAUSE[0]
            except UnavailableError as error:
                self._metrics.unknown()
                log.warning("scheduler.unavailable", reason=error.message, retryIn=outage)
                pause, outage = outage, min(outage * 2, _OUTAGE_PAUSE[1])
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    def stop(self) -> None:
        self._stopping.set()

    async def turn(self) -> float:
        """Fire all that is due; gives the seconds until more may be. Raises UnavailableError."""
        while not self._stopping.is_set() and (fired := await self._schedules.fire()) is not None:
            self._metrics.fired(fired)
        standings = await self._schedules.standings()
        for one in standings:
            self._metrics.stand(one)
        soonest = min((one.due_in for one in standings), default=self._poll)
        return min(max(soonest, _SHORTEST_PAUSE), self._poll)


async def schedule(settings: Settings, stopping: asyncio.Event) -> None:
    """Schedule until `stopping`, then drain: finish the firing in hand, close."""
    async with operated(
        settings, "scheduler", host=settings.scheduler.host, port=settings.scheduler.port
    ) as container:
        await run_schedules(container, stopping)


async def run_schedules(container: Container, stopping: asyncio.Event) -> None:
    """The scheduler without its port, until `stopping`."""
    settings = container.settings
    scheduler = Scheduler(
        Schedules(SCHEDULES, container.database, container.outbox),
        SchedulerMetrics(SCHEDULES, container.telemetry.metrics),
        poll=settings.scheduler.poll_seconds,
    )
    firing = asyncio.create_task(scheduler.run(), name="scheduler")
    background = [
        asyncio.create_task(stopping.wait(), name="stopping"),
        asyncio.create_task(container.health.await_dependencies(), name="await-dependencies"),
    ]
    try:
        # It does not end by itself: if it does, it has failed, and the process ends with its error.
        await first_of(firing, background[0])
        container.health.draining = True
        scheduler.stop()
        await firing
    finally:
        await end(firing, *background)


if __name__ == "__main__":
    sys.exit(run(schedule))
