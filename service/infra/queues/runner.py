"""What happens to a job whatever the engine: telemetry, timeout, retry with backoff, dead letters."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from observability import Attempt, JobTelemetry, get_logger
from service.errors import UnavailableError
from service.infra.queues.interface import Again, Delivery, Job, MalformedJobError, PermanentJobError

log = get_logger(__name__)

Perform = Callable[[Job], Awaitable[None]]

MALFORMED = "_malformed"
OUTAGE_DELAY = 5.0
INTERRUPTIONS = 10
SUSPECTED = 2
"""Interruptions from which on a job runs apart from others of its kind."""


class Failures(Protocol):
    """Where failures are written down, durably. Each call may raise `UnavailableError`."""

    async def retried(self, job: Job, error: BaseException, due_at: datetime) -> None:
        """An attempt failed and the job will be tried again."""

    async def interruptions(self, job: Job) -> int:
        """How often a worker had the job and did not end it, as far as is written down."""

    async def interrupted(self, job: Job) -> int:
        """A worker had the job and did not end it; gives how often that has happened."""

    async def bury(self, delivery: Delivery, job: Job | None, error: BaseException) -> None:
        """The job is a dead letter. It is None when the message was no envelope."""


class JobRunner:
    """Runs each delivery to its end: done, due again later, or dead. It is what engines call.

    A failure of the job counts as an attempt. `UnavailableError` does not: an outage of the database must not
    send every job that meets it to the dead letters, so those come back until it is over. Nor does the death
    of a worker, as most jobs in its hands are innocent; but one that outlived `interruptions` of them is
    taken for the cause.

    A job that ends its worker at once would drag along whatever is always delivered with it. So those that
    were interrupted `SUSPECTED` times run one after another, and only the one whose turn it is is counted.
    """

    def __init__(
        self,
        perform: Perform,
        failures: Failures,
        telemetry: JobTelemetry,
        *,
        interruptions: int = INTERRUPTIONS,
    ) -> None:
        self._perform = perform
        self._failures = failures
        self._telemetry = telemetry
        self._interruptions = interruptions
        self._apart = asyncio.Lock()

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
            enqueued_at=job.due_at,
            created_at=_timestamp(job),
            context=job.meta,
        )
        with attempt:
            try:
                await (self._again(job) if delivery.redelivered else self._timed(job))
            except Exception as error:  # noqa: BLE001 - whatever a job raises decides what becomes of it
                return await self._failed(delivery, job, attempt, error)
        return None

    async def _timed(self, job: Job) -> None:
        async with asyncio.timeout(job.options.timeout_seconds):
            await self._perform(job)

    async def _again(self, job: Job) -> None:
        if await self._failures.interruptions(job) < SUSPECTED:
            await self._interrupted(job)
            await self._timed(job)
            return
        async with self._apart:
            await self._interrupted(job)
            await self._timed(job)

    async def _interrupted(self, job: Job) -> None:
        count = await self._failures.interrupted(job)
        if self._telemetry.enabled:
            self._telemetry.metrics.series(job.name).interrupted.inc()
        if count > self._interruptions:
            raise PermanentJobError(f"{count} workers took it and did not end it: it may be what ended them")

    async def _failed(self, delivery: Delivery, job: Job, attempt: Attempt, error: Exception) -> Again | None:
        if isinstance(error, UnavailableError):
            return self._later(attempt, job, error, random.uniform(0.5, 1) * OUTAGE_DELAY)  # noqa: S311 - jitter
        try:
            if isinstance(error, PermanentJobError) or job.attempt >= job.options.attempts:
                await self._failures.bury(delivery, job, error)
                attempt.dead(error)
                return None
            delay = backoff(job)
            await self._failures.retried(job, error, datetime.now(UTC) + timedelta(seconds=delay))
        except UnavailableError as outage:
            # Nothing is written of this attempt, so that it does not count either.
            return self._later(attempt, job, outage, OUTAGE_DELAY)
        return self._later(attempt, job.model_copy(update={"attempt": job.attempt + 1}), error, delay)

    @staticmethod
    def _later(attempt: Attempt, job: Job, error: Exception, delay: float) -> Again:
        attempt.retried(error, delay=delay)
        due = datetime.now(UTC) + timedelta(seconds=delay)
        return Again(job.model_copy(update={"due_at": due}).encode(), delay)

    async def _reject(self, delivery: Delivery, error: MalformedJobError) -> Again | None:
        try:
            await self._failures.bury(delivery, None, error)
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
