"""Gauges that cost a query: sampled in the background, never while being scraped."""

import asyncio

from observability import get_logger
from service.container import Container
from service.db.jobs import backlog, control
from service.errors import UnavailableError

log = get_logger(__name__)

_UNKNOWN = float("nan")


class Sampler:
    """Depth and age of the queue and of the outbox. Not a number while the source does not answer."""

    def __init__(self, container: Container) -> None:
        metrics = container.telemetry.metrics
        self._database = container.database
        self._queue = container.queue
        self._seconds = container.settings.queue.sample_seconds
        name = container.queue.name
        self._depth = metrics.gauge(
            "queue_depth", "Due jobs that the broker holds, running ones included.", ("queue",)
        ).labels(name)
        self._delayed = metrics.gauge(
            "queue_delayed", "Jobs that the broker holds and that are not due yet.", ("queue",)
        ).labels(name)
        self._age = metrics.gauge(
            "queue_oldest_age_seconds", "How long the oldest published job has been due.", ("queue",)
        ).labels(name)
        self._open = metrics.gauge("jobs_open", "Due jobs that were published and have not ended.")
        self._dead = metrics.gauge("jobs_dead_letters", "Jobs in the dead-letter queue.")
        self._pending = metrics.gauge("outbox_pending", "Due jobs that are to be published.")
        self._held = metrics.gauge("outbox_held", "Due jobs not published, as their domain is paused.")
        self._lag = metrics.gauge("outbox_oldest_age_seconds", "Age of the oldest job to be published.")

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            await self._sample_queue()
            await self._sample_jobs()
            await asyncio.sleep(self._seconds)

    async def _sample_queue(self) -> None:
        waiting = delayed = _UNKNOWN
        try:
            found = await self._queue.stats()
            waiting, delayed = found.waiting, found.delayed
        except UnavailableError as error:
            log.debug("sampling.failed", source="queue", reason=error.message)
        self._depth.set(waiting)
        self._delayed.set(delayed)

    async def _sample_jobs(self) -> None:
        try:
            async with self._database.unit() as unit:
                found = await backlog.measure(unit, (await control.paused(unit)).domains)
        except UnavailableError as error:
            log.debug("sampling.failed", source="jobs", reason=error.message)
            for gauge in (self._age, self._open, self._dead, self._pending, self._held, self._lag):
                gauge.set(_UNKNOWN)
            return
        self._age.set(found.open_age)
        self._open.set(found.open)
        self._dead.set(found.dead)
        self._pending.set(found.pending)
        self._held.set(found.held)
        self._lag.set(found.pending_age)
