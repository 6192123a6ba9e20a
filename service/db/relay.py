"""Carries outbox entries to the queue: at least once, in order of their keys as far as one relay goes."""

import asyncio
import time
from contextlib import suppress

from prometheus_client import Counter

from observability import JobTelemetry, get_logger
from service.db import outbox
from service.db.outbox import OutboxEntry
from service.db.session import Database
from service.errors import UnavailableError
from service.infra.queues.interface import JobQueue
from service.settings import OutboxSettings

log = get_logger(__name__)

_PUBLISHERS = 16
_OUTAGE_PAUSE = (0.2, 5.0)
_PRUNE_EVERY = 60.0


class Relay:
    """One of any number.

    An entry is marked only after the broker has confirmed it: a crash between the two publishes it again and
    never loses it. Faults of broker and database are waited out.
    """

    def __init__(
        self,
        settings: OutboxSettings,
        database: Database,
        queue: JobQueue,
        telemetry: JobTelemetry,
        published: Counter,
    ) -> None:
        self._settings = settings
        self._database = database
        self._queue = queue
        self._telemetry = telemetry
        self._published = published
        self._slots = asyncio.Semaphore(_PUBLISHERS)
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Relay until `stop`; the batch in hand is finished."""
        pause = _OUTAGE_PAUSE[0]
        pruned = 0.0
        while not self._stopping.is_set():
            try:
                found = await self.relay_batch()
                if time.monotonic() - pruned > _PRUNE_EVERY:
                    pruned = time.monotonic()
                    async with self._database.unit() as unit:
                        await outbox.prune(unit, self._settings.keep_seconds)
            except UnavailableError as error:
                log.warning("outbox.unavailable", reason=error.message, retryIn=pause)
                await self._rest(pause)
                pause = min(pause * 2, _OUTAGE_PAUSE[1])
                continue
            pause = _OUTAGE_PAUSE[0]
            if found < self._settings.batch:
                await self._rest(self._settings.poll_seconds)

    def stop(self) -> None:
        self._stopping.set()

    async def relay_batch(self) -> int:
        """Publish up to a batch; gives how many entries were found. What failed stays for the next time.

        Raises:
            UnavailableError: the database or the queue did not answer.
        """
        async with self._database.unit() as unit:
            entries = await outbox.claim_pending(unit, self._settings.batch)
            if not entries:
                return 0
            results = await asyncio.gather(*map(self._publish, entries), return_exceptions=True)
            done = [entry for entry, result in zip(entries, results, strict=True) if result is None]
            failures = [result for result in results if result is not None]
            if done:
                await outbox.mark_published(unit, done)
        self._published.inc(len(done))
        if failures:
            raise failures[0]
        return len(entries)

    async def _publish(self, entry: OutboxEntry) -> None:
        async with self._slots:
            with self._telemetry.publish(entry.name, str(entry.job_id), entry.meta) as carrier:
                await self._queue.publish(entry.job(carrier))

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
