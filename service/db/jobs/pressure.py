"""Backpressure: new work is refused while more waits than the workers will get done in good time."""

import asyncio
import math
from dataclasses import dataclass

from observability import Metrics, get_logger
from service.db.jobs import backlog, control, presence
from service.db.jobs.presence import Capacity
from service.db.session import Database
from service.errors import OverloadedError, UnavailableError
from service.settings import QueueSettings

log = get_logger(__name__)

_RESUME_SHARE = 0.8
_RETRY_SECONDS = (1, 300)
_RETRY_UNKNOWN = 10
_UNKNOWN = float("nan")


@dataclass(frozen=True, slots=True)
class Reading:
    """Due jobs that have not ended, how long the oldest has been due (seconds), and who works on them."""

    depth: int
    age: float
    capacity: Capacity
    paused: bool


class Pressure:
    """Measures in the background, every `QUEUE_SAMPLE_SECONDS`; a request costs it one comparison.

    Past `QUEUE_MAX_DEPTH` or `QUEUE_MAX_AGE_SECONDS` it refuses, until both are back at four fifths, so that
    it does not flap. During a pause age says nothing of the workers, and only depth counts. While the
    database does not answer the last decision stands: nothing can be enqueued anyway.
    """

    def __init__(self, settings: QueueSettings, database: Database, metrics: Metrics) -> None:
        self._settings = settings
        self._database = database
        self._retry_after: int | None = None
        self._refused = metrics.counter(
            "jobs_refused", "Jobs not enqueued, as too much work was waiting.", ("job_name",)
        )
        self._refusing = metrics.gauge("jobs_refusing", "1 while new work is refused.")
        self._depth = metrics.gauge("jobs_backlog", "Due jobs that have not ended, published or not.")
        self._age = metrics.gauge("jobs_backlog_age_seconds", "How long the oldest of them has been due.")
        self._workers = metrics.gauge("jobs_workers", "Workers that live.")
        self._saturation = metrics.gauge(
            "jobs_saturation", "Share of what all workers may run at once that runs; 1 without a worker."
        )
        self._rate = metrics.gauge("jobs_drain_rate", "Jobs that all workers got done a second, lately.")
        self._measured = (self._depth, self._age, self._workers, self._saturation, self._rate)
        self._forget()

    @property
    def refusing(self) -> bool:
        return self._retry_after is not None

    def admit(self, job_name: str, count: int) -> None:
        """Raises OverloadedError while new work is refused."""
        refused = self._refused.labels(job_name)  # there from the first job on, for rates
        if self._retry_after is not None:
            refused.inc(count)
            raise OverloadedError(retry_after=self._retry_after)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                self.judge(await self.measure())
            except UnavailableError as error:
                log.debug("pressure.unavailable", reason=error.message)
                self._forget()
            await asyncio.sleep(self._settings.sample_seconds)

    async def measure(self) -> Reading:
        """A look at the database. Raises UnavailableError."""
        async with self._database.unit() as unit:
            paused = await control.paused(unit)
            found = await backlog.measure(unit, paused.domains)
            capacity = Capacity.of(await presence.workers(unit))
        age = max(found.pending_age, found.open_age)
        return Reading(found.pending + found.held + found.open, age, capacity, bool(paused))

    def judge(self, reading: Reading) -> None:
        """Refuse from now on, or not."""
        share = _RESUME_SHARE if self.refusing else 1.0
        most, oldest = self._settings.max_depth, self._settings.max_age_seconds
        too_many = most > 0 and reading.depth > most * share
        too_old = oldest > 0 and not reading.paused and reading.age > oldest * share
        before = self.refusing
        self._retry_after = self._wait(reading) if too_many or too_old else None
        if self.refusing != before:
            write = log.warning if self.refusing else log.info
            event = "jobs.refusing" if self.refusing else "jobs.accepting"
            write(event, depth=reading.depth, age=round(reading.age, 1), retryAfter=self._retry_after)
        self._refusing.set(self.refusing)
        self._depth.set(reading.depth)
        self._age.set(reading.age)
        self._workers.set(reading.capacity.workers)
        self._saturation.set(reading.capacity.saturation)
        self._rate.set(reading.capacity.rate)

    def _forget(self) -> None:
        for gauge in self._measured:
            gauge.set(_UNKNOWN)

    def _wait(self, reading: Reading) -> int:
        """Seconds until enough should be done, at the rate of late."""
        rate = 0.0 if reading.paused else reading.capacity.rate
        if rate <= 0:
            return _RETRY_UNKNOWN
        most, oldest = self._settings.max_depth, self._settings.max_age_seconds
        surplus = reading.depth - most * _RESUME_SHARE if most else 0.0
        if oldest and reading.age > oldest * _RESUME_SHARE:
            # Jobs came about evenly over the age of the oldest, so that this share of them is too old.
            surplus = max(surplus, reading.depth * (1 - oldest * _RESUME_SHARE / reading.age))
        shortest, longest = _RETRY_SECONDS
        return min(longest, max(shortest, math.ceil(surplus / rate)))
