"""What happens to a job whatever the engine: telemetry, timeout, retry with backoff, dead letters."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from observability import Attempt, JobTelemetry, get_logger
from service.errors import UnavailableError
from service.infra.queues.interface import Again, Delivery, Job, MalformedJobError, PermanentJobError

log = get_logger(__name__)

Perform = Callable[[Job], Awaitable[None]]
Bury = Callable[[Delivery, Job | None, BaseException], Awaitable[None]]
"""Stores a dead job with its last error, durably. The job is None when the message was no envelope."""

MALFORMED = "_malformed"
OUTAGE_DELAY = 5.0


class JobRunner:
    """Runs each delivery to its end: done, due again later, or dead. It is what engines call.

    A failure of the job counts as an attempt. `UnavailableError` does not: an outage of the database must not
    send every job that meets it to the dead letters, so those come back until it is over.
    """

    def __init__(self, perform: Perform, bury: Bury, telemetry: JobTelemetry) -> None:
        self._perform = perform
        self._bury = bury
        self._telemetry = telemetry

    async def __call__(self, delivery: Delivery) -> Again | None:
        try:
            job = Job.decode(delivery.body)
        except MalformedJobError as error:
            return await self._reject(delivery, error)
        attempt = self._telemetry.process(
            job.name,
            str(job.id),
            job.meta,
            attempt=job.attempt,
            enqueued_at=job.enqueued_at,
            created_at=_timestamp(job),
            context=job.meta,
        )
        with attempt:
            try:
                async with asyncio.timeout(job.options.timeout_seconds):
                    await self._perform(job)
            except Exception as error:  # noqa: BLE001 - whatever a job raises decides what becomes of it
                return await self._failed(delivery, job, attempt, error)
        return None

    async def _failed(self, delivery: Delivery, job: Job, attempt: Attempt, error: Exception) -> Again | None:
        if isinstance(error, UnavailableError):
            return self._later(attempt, job, error, random.uniform(0.5, 1) * OUTAGE_DELAY)  # noqa: S311 - jitter
        if isinstance(error, PermanentJobError) or job.attempt >= job.options.attempts:
            try:
                await self._bury(delivery, job, error)
            except UnavailableError as outage:
                return self._later(attempt, job, outage, OUTAGE_DELAY)
            attempt.dead(error)
            return None
        return self._later(attempt, job.model_copy(update={"attempt": job.attempt + 1}), error, backoff(job))

    @staticmethod
    def _later(attempt: Attempt, job: Job, error: Exception, delay: float) -> Again:
        attempt.retried(error, delay=delay)
        due = datetime.now(UTC) + timedelta(seconds=delay)
        return Again(job.model_copy(update={"enqueued_at": due}).encode(), delay)

    async def _reject(self, delivery: Delivery, error: MalformedJobError) -> Again | None:
        try:
            await self._bury(delivery, None, error)
        except UnavailableError:
            return Again(delivery.body, OUTAGE_DELAY)
        if self._telemetry.enabled:
            self._telemetry.metrics.series(MALFORMED).dead.inc()
        log.error("job.dead", job=MALFORMED, jobId=delivery.id, reason=str(error))
        return None


def backoff(job: Job) -> float:
    """Seconds until the next attempt; the exponential kind doubles each time and varies by up to a half."""
    options = job.options
    if options.backoff == "fixed":
        return options.backoff_seconds
    longest = options.backoff_seconds * 2.0 ** (job.attempt - 1)
    return longest * random.uniform(0.5, 1)  # noqa: S311 - jitter


def _timestamp(job: Job) -> datetime | None:
    try:
        return datetime.fromisoformat(job.meta["timestamp"])
    except (KeyError, ValueError):
        return None
