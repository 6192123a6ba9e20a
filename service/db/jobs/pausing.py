"""The worker's side of a pause: it stops fetching, or hands the jobs of a paused domain back."""

import asyncio
from contextlib import suppress

from sqlalchemy.dialects.postgresql import insert

from observability import Metrics, get_logger
from service.db.jobs import control
from service.db.jobs.control import Paused
from service.db.jobs.effects import row_of
from service.db.jobs.listen import Listener
from service.db.jobs.record import JobRecord
from service.db.session import Database
from service.errors import UnavailableError
from service.infra.queues.interface import Again, Delivery, Job, JobQueue, MalformedJobError, Runner
from service.infra.queues.runner import OUTAGE_DELAY

log = get_logger(__name__)


class Pausing:
    """Follows the pauses in the database: woken by their commits, with a poll for what was not heard.

    A worker begins paused and fetches nothing until it has read what is in force; without its database it
    could end no job anyway. Once it knows, it keeps to that through an outage.
    """

    def __init__(self, database: Database, queue: JobQueue, metrics: Metrics, *, seconds: float) -> None:
        """`seconds` is the longest time until a pause that nobody told of is seen."""
        self._database = database
        self._queue = queue
        self._seconds = seconds
        self._listener = Listener(database, control.CHANNEL)
        self._any = metrics.gauge("jobs_paused", "1 while the queue or one of its domains is paused.")
        self._whole = metrics.gauge("queue_paused", "1 while the whole queue is paused.", ("queue",)).labels(
            queue.name
        )
        self._any.set(float("nan"))
        self._whole.set(float("nan"))
        self.now = Paused(whole=True)

    async def begin(self) -> None:
        """Before the first fetch."""
        await self._queue.pause()

    async def run(self) -> None:
        """Until cancelled."""
        known = False
        async with self._listener.listening():
            while True:
                self._listener.heard.clear()
                try:
                    async with self._database.unit() as unit:
                        found = await control.paused(unit)
                except UnavailableError as error:
                    log.debug("pausing.unavailable", reason=error.message)
                else:
                    await self._follow(found, first=not known)
                    known = True
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._listener.heard.wait(), self._seconds)

    async def _follow(self, found: Paused, *, first: bool) -> None:
        before, self.now = self.now, found
        self._any.set(bool(found))
        self._whole.set(found.whole)
        if found.whole and (first or not before.whole):
            await self._queue.pause()
        elif not found.whole and before.whole:
            await self._queue.resume()
        if bool(found) if first else found != before:
            log.info("worker.paused" if found else "worker.resumed", whole=found.whole,
                     domains=sorted(found.domains))  # fmt: skip

    def holding_back(self, run: Runner) -> Runner:
        """`run`, but for jobs of a paused domain: those go back to the outbox, where they wait.

        Other domains go on meanwhile. Handed back is durable before the broker is told that it may forget.
        """

        async def hold_back(delivery: Delivery) -> Again | None:
            if not self.now.domains:
                return await run(delivery)
            try:
                job = Job.decode(delivery.body)
            except MalformedJobError:
                return await run(delivery)
            if job.domain not in self.now.domains:
                return await run(delivery)
            try:
                await self._hand_back(job)
            except UnavailableError:
                return Again(delivery.body, OUTAGE_DELAY)
            return None

        return hold_back

    async def _hand_back(self, job: Job) -> None:
        statement = (
            insert(JobRecord)
            .values(**row_of(job) | {"published_at": None})
            .on_conflict_do_update(
                index_elements=[JobRecord.job_id],
                set_={"published_at": None},
                where=JobRecord.outcome.is_(None),
            )
        )
        async with self._database.unit() as unit:
            await unit.session.execute(statement)
