"""Gauges that cost a query: sampled in the background, never while being scraped."""

import asyncio

from observability import get_logger
from service.container import Container
from service.db import outbox
from service.errors import UnavailableError

log = get_logger(__name__)


class Sampler:
    """Depth and age of the queue and of the outbox. Not a number while the source does not answer."""

    def __init__(self, container: Container) -> None:
        metrics = container.telemetry.metrics
        self._database = container.database
        self._queue = container.queue
        self._seconds = container.settings.queue.sample_seconds
        name = container.queue.name
        self._depth = metrics.gauge(
            "queue_depth", "Jobs in the queue, running ones included.", ("queue",)
        ).labels(name)
        self._age = metrics.gauge(
            "queue_oldest_age_seconds", "How long the oldest job has been due.", ("queue",)
        ).labels(name)
        self._pending = metrics.gauge("outbox_pending", "Outbox entries not published yet.")
        self._lag = metrics.gauge("outbox_oldest_age_seconds", "Age of the oldest entry not published yet.")

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            await self._sample_queue()
            await self._sample_outbox()
            await asyncio.sleep(self._seconds)

    async def _sample_queue(self) -> None:
        depth = age = float("nan")
        try:
            found = await self._queue.stats()
            depth, age = found.depth, found.oldest_age
        except UnavailableError as error:
            log.debug("sampling.failed", source="queue", reason=error.message)
        self._depth.set(depth)
        self._age.set(age)

    async def _sample_outbox(self) -> None:
        pending = age = float("nan")
        try:
            async with self._database.unit() as unit:
                found = await outbox.stats(unit)
            pending, age = found.pending, found.oldest_age
        except UnavailableError as error:
            log.debug("sampling.failed", source="outbox", reason=error.message)
        self._pending.set(pending)
        self._lag.set(age)
