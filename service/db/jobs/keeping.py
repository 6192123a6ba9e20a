"""What ended jobs leave behind, for how long; and jobs that the broker has lost."""

import asyncio
import time
from datetime import timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.sql import ColumnElement

from observability import Metrics, get_logger
from service.db.jobs import control, pruning
from service.db.jobs.record import JobRecord, Outcome
from service.db.session import Database, UnitOfWork
from service.errors import UnavailableError
from service.settings import OutboxSettings

log = get_logger(__name__)

_EVERY_SECONDS = 60.0


class Keeping:
    """Runs in every worker; what it does is safe to do at the same time and again.

    Completed jobs stay for `keep_seconds`, in which a duplicate delivery finds that it is one, and the newest
    of each name for longer. A dead letter becomes a failed job after `dead_seconds`, or when there are more
    than `dead_limit`; of failed ones the newest of each name stay.
    """

    def __init__(self, settings: OutboxSettings, database: Database, metrics: Metrics) -> None:
        self._settings = settings
        self._database = database
        self._paused_at = float("-inf")
        self._pruning = pruning.Pruning(settings, database)
        self._republished = metrics.counter(
            "outbox_republished", "Jobs given to the queue again, as it seemed to have lost them."
        )

    async def run(self) -> None:
        """Every minute until cancelled."""
        while True:
            try:
                await self.once()
            except UnavailableError as error:
                log.debug("keeping.unavailable", reason=error.message)
            await asyncio.sleep(_EVERY_SECONDS)

    async def once(self) -> None:
        """One turn. Raises UnavailableError."""
        async with self._database.unit() as unit:
            if await pruning.alone(unit):
                await self._retire_dead(unit)
        if gone := await self._pruning.once():
            log.debug("jobs.pruned", jobs=gone)
        async with self._database.unit() as unit:
            lost = await self._republish(unit)
        if lost:
            self._republished.inc(lost)
            log.warning("outbox.republished", jobs=lost, after=self._settings.republish_seconds)

    async def _retire_dead(self, unit: UnitOfWork) -> None:
        dead = JobRecord.outcome == Outcome.DEAD
        newest = (
            select(JobRecord.id)
            .where(dead)
            .order_by(JobRecord.finished_at.desc(), JobRecord.id.desc())
            .offset(self._settings.dead_limit)
        )
        too_many = JobRecord.id.in_(newest.scalar_subquery())
        await unit.session.execute(
            update(JobRecord)
            .where(dead, or_(_older(self._settings.dead_seconds), too_many))
            .values(outcome=Outcome.FAILED)
            .execution_options(synchronize_session=False)
        )

    async def _republish(self, unit: UnitOfWork) -> int:
        """Jobs that should have ended long ago are published again: delivered twice, they have one effect.

        Not during a pause, when jobs wait for long without being lost, and not until they have had that time
        once more after it: all that waited would go to the broker a second time, and a ticket tell of a loss.
        """
        if await control.paused(unit):
            self._paused_at = time.monotonic()
            return 0
        if time.monotonic() - self._paused_at < self._settings.republish_seconds:
            return 0
        overdue = timedelta(seconds=self._settings.republish_seconds)
        statement = (
            update(JobRecord)
            .where(
                JobRecord.outcome.is_(None),
                JobRecord.published_at < func.now() - overdue,
                JobRecord.due_at < func.now() - overdue,
            )
            .values(published_at=None)
            .returning(JobRecord.id)
            .execution_options(synchronize_session=False)
        )
        return len((await unit.session.execute(statement)).all())


def _older(seconds: float) -> ColumnElement[bool]:
    return JobRecord.finished_at < func.now() - timedelta(seconds=seconds)
