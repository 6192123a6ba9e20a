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

    `pending` are due and on their way to the broker; `held` stay in the outbox, as their domain is paused;
    `open` are with the broker and not ended, `open_age` how long the oldest of them has been due; `dead` the
    dead letters.
    """

    pending: int
    pending_age: float
    held: int
    open: int
    open_age: float
    dead: int


async def measure(unit: UnitOfWork, held: frozenset[str] = frozenset()) -> Backlog:
    """Three index scans. `held` are the domains whose jobs stay in the outbox for now."""
    record, due = JobRecord, JobRecord.due_at <= func.now()
    kept = func.coalesce(func.split_part(record.name, ".", 1).in_(held), False)
    pending = await unit.session.execute(
        select(
            func.count().filter(~kept),
            _age(func.greatest(record.created_at, record.due_at), ~kept),
            func.count().filter(kept),
        ).where(record.published_at.is_(None), record.outcome.is_(None), due)
    )
    opened = await unit.session.execute(
        select(func.count(), _age(record.due_at)).where(
            record.published_at.is_not(None), record.outcome.is_(None), due
        )
    )
    dead = await unit.session.scalar(select(func.count()).where(record.outcome == Outcome.DEAD))
    (waiting, waiting_age, paused), (out, out_age) = pending.one(), opened.one()
    return Backlog(waiting, max(0.0, float(waiting_age)), paused, out, max(0.0, float(out_age)), dead or 0)


def _age(since: Any, where: ColumnElement[bool] | None = None) -> ColumnElement[float]:
    oldest = func.min(since)
    chosen = oldest if where is None else oldest.filter(where)
    return func.coalesce(func.extract("epoch", func.now() - chosen), 0)
