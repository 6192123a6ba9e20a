"""Carries jobs from the outbox to the queue: at least once, in order of their keys as far as one relay goes.

Several relays run side by side and share the work, so that two jobs may overtake each other by a batch. Of
jobs that must follow each other, the second is enqueued by the first.
"""

import asyncio
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta

from observability import JobTelemetry, Metrics, get_logger
from service.db.jobs import outbox
from service.db.jobs.listen import Listener
from service.db.jobs.record import JobRecord
from service.db.session import Database
from service.errors import UnavailableError
from service.infra.queues.interface import JobError, JobQueue
from service.settings import OutboxSettings

log = get_logger(__name__)

AHEAD_SECONDS = 30.0
"""A job that is due later than this waits in the database, where nothing can lose it, not in the broker."""

_OUTAGE_PAUSE = (0.2, 5.0)


class RelayMetrics:
    """What relays count; one for a process."""

    def __init__(self, metrics: Metrics) -> None:
        self.published = metrics.counter("outbox_published", "Jobs handed to the queue.")
        self.refused = metrics.counter("outbox_refused", "Jobs that the broker did not take.")


class Relay:
    """One of any number.

    A job is marked only after the broker has confirmed it: a crash between the two publishes it again and
    never loses it. Faults of broker and database are waited out. It is woken by the commit of what it is to
    carry; the poll is for what no commit tells of: a job that becomes due, a notification that was lost.
    """

    def __init__(
        self,
        settings: OutboxSettings,
        database: Database,
        queue: JobQueue,
        telemetry: JobTelemetry,
        metrics: RelayMetrics,
        *,
        held: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        """`held` gives the domains whose jobs are to stay in the outbox for now."""
        self._settings = settings
        self._database = database
        self._queue = queue
        self._telemetry = telemetry
        self._metrics = metrics
        self._held = held
        self._listener = Listener(database, outbox.CHANNEL)
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Relay until `stop`; the batch in hand is finished."""
        pause = _OUTAGE_PAUSE[0]
        async with self._listener.listening():
            while not self._stopping.is_set():
                self._listener.heard.clear()
                try:
                    found = await self.relay_batch()
                except UnavailableError as error:
                    log.warning("outbox.unavailable", reason=error.message, retryIn=pause)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), pause)
                    pause = min(pause * 2, _OUTAGE_PAUSE[1])
                    continue
                pause = _OUTAGE_PAUSE[0]
                if found < self._settings.batch:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._listener.heard.wait(), self._settings.poll_seconds)

    def stop(self) -> None:
        self._stopping.set()
        self._listener.heard.set()

    async def relay_batch(self) -> int:
        """Publish up to a batch; gives how many jobs were found. What failed stays for the next time.

        Raises:
            UnavailableError: the database or the queue did not answer.
        """
        async with self._database.unit() as unit:
            records = await outbox.claim_pending(unit, self._settings.batch, AHEAD_SECONDS, held=self._held())
            if not records:
                return 0
            ahead = await outbox.database_time(unit) - now()
            answers = list(zip(records, await self._publish(records, ahead), strict=True))
            taken = [record for record, error in answers if error is None]
            if taken:
                await outbox.mark_published(unit, taken)
            for record, error in answers:
                if error is not None:
                    log.error("job.refused", job=record.name, jobId=str(record.job_id), reason=str(error))
                    await outbox.mark_refused(unit, record, error)
        self._metrics.published.inc(len(taken))
        self._metrics.refused.inc(len(records) - len(taken))
        return len(records)

    async def _publish(self, records: list[JobRecord], ahead: timedelta) -> list[JobError | None]:
        """One batch, a span for each job. The spans end in reverse, as each became current after the last."""
        with ExitStack() as unsent:
            spans, jobs = [], []
            for record in records:
                span = unsent.enter_context(ExitStack())
                name, job_id = record.name or "", str(record.job_id)
                carrier = span.enter_context(self._telemetry.publish(name, job_id, record.meta))
                jobs.append(record.job(carrier, ahead=ahead))
                spans.append(span)
            results = await self._queue.publish(jobs)
            for span, error in reversed(list(zip(spans, results, strict=True))):
                with suppress(JobError), span:
                    if error is not None:
                        raise error
        return results


def now() -> datetime:
    """This process's time."""
    return datetime.now(UTC)
