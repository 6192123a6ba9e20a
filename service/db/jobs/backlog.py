"""How much there is to do, counted where it is true."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.sql import ColumnElement

from service.db.jobs.record import JobRecord, Outcome
from service.db.session import UnitOfWork


@dataclass(frozen=True, slots=True)
class Backlog:
    """Jobs by where they are, and the age of the oldest (seconds; 0 when there is none).

    `pending` are due and not with the broker yet; `open` with the broker and not ended, `open_age` how long
    the oldest of them has been due; `dead` the dead letters.
    """

    pending: int
    pending_age: float
    open: int
    open_age: float
    dead: int


async def measure(unit: UnitOfWork) -> Backlog:
    """Three index scans."""
    record, due = JobRecord, JobRecord.due_at <= func.now()
    pending = await unit.session.execute(
        select(func.count(), _age(func.greatest(record.created_at, record.due_at))).where(
            record.published_at.is_(None), record.outcome.is_(None), due
        )
    )
    opened = await unit.session.execute(
        select(func.count(), _age(record.due_at)).where(
            record.published_at.is_not(None), record.outcome.is_(None), due
        )
    )
    dead = await unit.session.scalar(select(func.count()).where(record.outcome == Outcome.DEAD))
    (waiting, waiting_age), (held, held_age) = pending.one(), opened.one()
    return Backlog(waiting, max(0.0, float(waiting_age)), held, max(0.0, float(held_age)), dead or 0)


def _age(since: Any) -> ColumnElement[float]:
    return func.coalesce(func.extract("epoch", func.now() - func.min(since)), 0)
