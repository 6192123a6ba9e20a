"""What ended jobs leave behind, for how long; and jobs that the broker has lost."""

import asyncio
from datetime import timedelta

from sqlalchemy import Integer, and_, delete, func, or_, select, update
from sqlalchemy.sql import ColumnElement

from observability import Metrics, get_logger
from service.db.jobs import control
from service.db.jobs.record import JobRecord, Outcome
from service.db.session import Database, UnitOfWork
from service.errors import UnavailableError
from service.settings import OutboxSettings

log = get_logger(__name__)

_EVERY_SECONDS = 60.0
_BATCH = 5000


class Keeping:
    """Runs in every worker; what it does is safe to do at the same time and again.

    Completed jobs stay for `keep_seconds`, in which a duplicate delivery finds that it is one, and the newest
    of each name for longer. A dead letter becomes a failed job after `dead_seconds`, or when there are more
    than `dead_limit`; of failed ones the newest of each name stay.
    """

    def __init__(self, settings: OutboxSettings, database: Database, metrics: Metrics) -> None:
        self._settings = settings
        self._database = database
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
            await self._retire_dead(unit)
            await self._prune(unit)
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

    async def _prune(self, unit: UnitOfWork) -> None:
        rank = func.row_number().over(
            partition_by=(JobRecord.outcome, JobRecord.name),
            order_by=(JobRecord.finished_at.desc(), JobRecord.id.desc()),
        )
        ended = (
            select(
                JobRecord.id, JobRecord.outcome, JobRecord.finished_at, JobRecord.options, rank.label("rank")
            )
            .where(JobRecord.outcome.in_((Outcome.COMPLETED, Outcome.FAILED, Outcome.REMOVED)))
            .subquery()
        )

        def kept(option: str, otherwise: int) -> ColumnElement[int]:
            return func.coalesce(ended.c.options[option].astext.cast(Integer), otherwise)

        old = ended.c.finished_at < func.now() - timedelta(seconds=self._settings.keep_seconds)
        surplus = or_(
            and_(ended.c.outcome == Outcome.COMPLETED, ended.c.rank > kept("keepCompleted", 100), old),
            and_(ended.c.outcome == Outcome.FAILED, ended.c.rank > kept("keepFailed", 50)),
            and_(ended.c.outcome == Outcome.REMOVED, old),
        )
        chosen = select(ended.c.id).where(surplus).limit(_BATCH)
        await unit.session.execute(
            delete(JobRecord)
            .where(JobRecord.id.in_(chosen.scalar_subquery()))
            .execution_options(synchronize_session=False)
        )

    async def _republish(self, unit: UnitOfWork) -> int:
        """Jobs that should have ended long ago are published again: delivered twice, they have one effect.

        Not during a pause, when jobs wait for long without being lost.
        """
        if await control.paused(unit):
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
