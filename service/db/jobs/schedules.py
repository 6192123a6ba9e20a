"""Schedules: what is to be enqueued when, and the row that keeps several schedulers from doing it twice."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel
from sqlalchemy import String, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql import ColumnElement

from observability import get_logger
from service.db.base import Base
from service.db.jobs.outbox import Outbox, job_id_of
from service.db.jobs.timing import Timing, newest
from service.db.session import Database, UnitOfWork
from service.infra.queues.interface import JobKind

log = get_logger(__name__)

P = TypeVar("P", bound=BaseModel)

Missed = Literal["catch_up", "once", "skip"]
"""What becomes of firings that nobody was there for: each is made up for, one stands for all, or none."""


class ScheduleRecord(Base):
    """When a schedule fires next, and when it last did. `policy` and `timing` are there for people, and to
    tell a schedule that was changed."""

    __tablename__ = "schedule"

    name: Mapped[str] = mapped_column(String(100), unique=True)
    timing: Mapped[str]
    policy: Mapped[str] = mapped_column(String(10))
    next_due: Mapped[datetime]
    last_fired: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


@dataclass(frozen=True)
class Schedule(Generic[P]):
    """Enqueues a job of `kind` at each firing of `timing`; `payload` makes it from the time of the firing.

    A firing is missed when it was not enqueued `grace` seconds after its time. Of those that are due at once
    only the newest `most` are looked at: a schedule of every second does not make up for a year.
    """

    name: str
    timing: Timing
    kind: JobKind[P]
    payload: Callable[[datetime], P]
    missed: Missed
    grace: float = 60.0
    most: int = 100

    def __post_init__(self) -> None:
        if not 1 <= len(self.name) <= 100 or self.grace <= 0 or not 1 <= self.most <= 1000:
            raise ValueError(
                f"{self.name!r} is no schedule: name of 1 to 100 characters, grace above 0, most 1-1000"
            )

    def chosen(self, due: list[datetime], now: datetime) -> tuple[list[datetime], int]:
        """Of the due firings, the oldest first, those to enqueue; and how many of all were missed."""
        punctual = [at for at in due if now - at <= timedelta(seconds=self.grace)]
        missed = due[: len(due) - len(punctual)]
        match self.missed:
            case "catch_up":
                return due, len(missed)
            case "once":
                # One that is on time does what the missed ones should have done.
                return punctual or missed[-1:], len(missed)
            case "skip":
                return punctual, len(missed)


@dataclass(frozen=True, slots=True)
class Fired:
    """What one look at a due schedule led to."""

    schedule: str
    enqueued: list[datetime]
    missed: int
    policy: Missed


@dataclass(frozen=True, slots=True)
class Standing:
    """How a schedule stands: seconds until it fires, negative when it is due, and when it last fired."""

    schedule: str
    due_in: float
    last_fired: datetime | None


class Schedules:
    """The schedules of the code, kept in the database. Any number of processes may fire them side by side.

    The time is the database's, so that a host's wrong clock, or one that jumps, changes nothing.
    Each method is a transaction of its own. Raises UnavailableError.
    """

    def __init__(self, schedules: Iterable[Schedule[Any]], database: Database, outbox: Outbox) -> None:
        """Raises ValueError for two schedules of the same name."""
        found = list(schedules)
        self._schedules: Mapping[str, Schedule[Any]] = {one.name: one for one in found}
        if len(self._schedules) != len(found):
            raise ValueError("two schedules have the same name")
        self._database = database
        self._outbox = outbox

    async def reconcile(self) -> None:
        """Give new schedules a row, time changed ones anew, and forget those that the code no longer has."""
        async with self._database.unit() as unit:
            gone = await unit.session.scalars(
                delete(ScheduleRecord)
                .where(ScheduleRecord.name.not_in(list(self._schedules)))
                .returning(ScheduleRecord.name)
            )
            changed = {f"-{name}" for name in gone}
            now = await _now(unit)
            # One order for all, or two schedulers that start together wait for each other.
            for name in sorted(self._schedules):
                if await self._reconcile(unit, self._schedules[name], now):
                    changed.add(name)
        if changed:
            log.info("schedules.reconciled", schedules=sorted(changed))

    @staticmethod
    async def _reconcile(unit: UnitOfWork, one: Schedule[Any], now: datetime) -> bool:
        """A row that waits for longer than its timing ever would is from a time when the clock was wrong."""
        following = one.timing.next(now)
        wrong = one.timing.next(following)
        values = {"timing": str(one.timing), "next_due": following, "updated_at": now}
        statement = (
            insert(ScheduleRecord)
            .values(name=one.name, policy=one.missed, **values)
            .on_conflict_do_update(
                index_elements=[ScheduleRecord.name],
                set_=values,
                where=(ScheduleRecord.timing != str(one.timing)) | (ScheduleRecord.next_due > wrong),
            )
            .returning(ScheduleRecord.id)
        )
        timed = (await unit.session.execute(statement)).first() is not None
        await unit.session.execute(
            update(ScheduleRecord)
            .where(ScheduleRecord.name == one.name, ScheduleRecord.policy != one.missed)
            .values(policy=one.missed, updated_at=now)
        )
        return timed

    async def fire(self) -> Fired | None:
        """Fire the schedule that has been due for longest of those that nobody else is firing, if any is.

        In one transaction the row moves on and the jobs are in the outbox. Their IDs are made of name and
        time, so that even without the row's lock a firing would be one job.
        """
        async with self._database.unit() as unit:
            record = await unit.session.scalar(
                select(ScheduleRecord)
                .where(self._timed_alike(), ScheduleRecord.next_due <= func.now())
                .order_by(ScheduleRecord.next_due, ScheduleRecord.id)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            if record is None:
                return None
            one = self._schedules[record.name]
            now = await _now(unit)
            due = newest(one.timing, record.next_due, now, one.most)
            chosen, missed = one.chosen(due, now)
            for at in chosen:
                job_id = job_id_of(f"{one.name}@{at.isoformat()}")
                await self._outbox.add(unit, one.kind, one.payload(at), job_id=job_id)
            record.next_due, record.updated_at = one.timing.next(now), now
            if chosen:
                record.last_fired = chosen[-1]
            await unit.session.flush()
        if missed:
            log.warning("schedule.missed", schedule=one.name, missed=missed, policy=one.missed)
        log.info("schedule.fired", schedule=one.name, firings=len(chosen))
        return Fired(one.name, chosen, missed, one.missed)

    def _timed_alike(self) -> ColumnElement[bool]:
        """Not those that a newer version of the code has timed differently: they are left to it."""
        known = [(one.name, str(one.timing)) for one in self._schedules.values()]
        return tuple_(ScheduleRecord.name, ScheduleRecord.timing).in_(known)

    async def standings(self) -> list[Standing]:
        """How each schedule stands."""
        until = func.extract("epoch", ScheduleRecord.next_due - func.clock_timestamp())
        columns = select(ScheduleRecord.name, until, ScheduleRecord.last_fired)
        async with self._database.unit() as unit:
            rows = await unit.session.execute(columns.where(ScheduleRecord.name.in_(list(self._schedules))))
            return [Standing(name, float(seconds), last) for name, seconds, last in rows]


async def _now(unit: UnitOfWork) -> datetime:
    now: datetime | None = await unit.session.scalar(select(func.now()))
    assert now is not None  # noqa: S101 - it is a constant of the transaction
    return now
