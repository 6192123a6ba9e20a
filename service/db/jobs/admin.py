"""What an operator does with jobs. Nothing here commits, and no effect comes to happen twice."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    String,
    Uuid,
    any_,
    case,
    delete,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import defer

from service.db.jobs import outbox, presence
from service.db.jobs.record import JobRecord, Outcome
from service.db.session import UnitOfWork
from service.errors import ConflictError, NotFoundError
from service.infra.queues.runner import MALFORMED

JobStatus = Literal["waiting", "active", "delayed", "completed", "failed", "dead", "removed"]
"""`failed` was a dead letter and is out of that queue; `removed` was taken out by hand."""

EndedStatus = Literal["completed", "failed", "dead", "removed"]
STATUSES: tuple[JobStatus, ...] = get_args(JobStatus)

_BATCH = 5000
_BATCHES = 20
_LOCK_TIMEOUT = "2s"
_LOCK_NOT_AVAILABLE = "55P03"


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Equal on what is given; `since` is the earliest creation."""

    status: JobStatus | None = None
    name: str | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A job and where it is."""

    record: JobRecord
    status: JobStatus


async def running(unit: UnitOfWork) -> list[UUID]:
    """The jobs that some worker runs, as of the workers' last heartbeats."""
    return [UUID(job_id) for worker in await presence.workers(unit) for job_id in worker.running]


def status_of(record: JobRecord, active: set[UUID], now: datetime) -> JobStatus:
    """Where a job is."""
    if record.outcome is not None:
        ended: EndedStatus = Outcome(record.outcome).value
        return ended
    if record.job_id in active:
        return "active"
    return "delayed" if record.due_at > now else "waiting"


def selected(wanted: JobFilter, active: list[UUID]) -> Select[tuple[JobRecord]]:
    """The jobs of a list, without what makes them large."""
    statement = select(JobRecord).options(*(defer(c, raiseload=True) for c in _LARGE))
    if wanted.status is not None:
        statement = statement.where(*_in_status(wanted.status, active))
    if wanted.name is not None:
        statement = statement.where(JobRecord.name == wanted.name)
    if wanted.since is not None:
        statement = statement.where(JobRecord.created_at >= wanted.since)
    return statement


_LARGE = (JobRecord.payload, JobRecord.meta, JobRecord.body, JobRecord.options)


def _in_status(status: JobStatus, active: list[UUID]) -> list[ColumnElement[bool]]:
    if status in get_args(EndedStatus):
        return [JobRecord.outcome == status]
    return [JobRecord.outcome.is_(None), _status(active) == status]


def _status(active: list[UUID]) -> ColumnElement[str]:
    runs = JobRecord.job_id == any_(literal(active, ARRAY(Uuid())))
    return case(
        (JobRecord.outcome.is_not(None), JobRecord.outcome),
        (runs, literal("active", String)),
        (JobRecord.due_at > func.clock_timestamp(), literal("delayed", String)),
        else_=literal("waiting", String),
    )


async def get(unit: UnitOfWork, job_id: UUID) -> JobRecord:
    """Raises NotFoundError."""
    return await _get(unit, select(JobRecord).where(JobRecord.job_id == job_id))


async def remove(unit: UnitOfWork, job_id: UUID) -> JobRecord:
    """Take a job out: no delivery of it has an effect any more. Removed already, it stays so.

    One that is having its effect in the database ends first, and its end decides. An effect outside of the
    database that has begun goes on; it is not repeated.

    Raises:
        NotFoundError: there is none.
        ConflictError: it has completed, or it runs and did not end in two seconds.
    """
    record = await _lock(unit, job_id)
    if record.outcome == Outcome.COMPLETED:
        raise ConflictError("The job has completed")
    if record.outcome != Outcome.REMOVED:
        record.outcome, record.finished_at = Outcome.REMOVED, datetime.now(UTC)
        await unit.session.flush()
    return record


async def retry(unit: UnitOfWork, job_id: UUID) -> JobRecord:
    """Try a dead or failed job anew, with all its attempts, at once.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is not one to retry: it goes on, has completed, was removed, or has no envelope.
    """
    record = await _lock(unit, job_id)
    if record.name is None:
        raise ConflictError("The message was no job envelope, so that there is nothing to retry; remove it")
    if record.outcome not in (Outcome.DEAD, Outcome.FAILED):
        state = record.outcome or "not ended"
        raise ConflictError(f"Only a dead or failed job can be retried; this one is {state}")
    await _revive(unit, JobRecord.id == record.id)
    await unit.session.refresh(record)
    return record


async def retry_dead(unit: UnitOfWork, name: str | None = None) -> int:
    """Retry all dead letters, or those of one name; gives how many. Malformed ones stay."""
    wanted = [JobRecord.outcome == Outcome.DEAD, JobRecord.name.is_not(None)]
    if name is not None:
        wanted.append(JobRecord.name == name)
    return await _revive(unit, *wanted)


async def clean(unit: UnitOfWork, status: EndedStatus, grace_seconds: float, keep_seconds: float) -> int:
    """Drop jobs that ended so at least `grace_seconds` ago; gives how many, at most 100,000 in one call.

    Those that ended less than `keep_seconds` ago become removed ones and go later: a delivery that is still
    under way must find that its job has ended.
    """
    age = func.clock_timestamp() - JobRecord.finished_at
    ended = [JobRecord.outcome == status, age >= timedelta(seconds=grace_seconds)]
    young = age < timedelta(seconds=keep_seconds)
    total = 0
    for _ in range(_BATCHES):
        chosen = select(JobRecord.id).where(*ended, ~young).limit(_BATCH).scalar_subquery()
        gone = delete(JobRecord).where(JobRecord.id.in_(chosen)).returning(JobRecord.id)
        count = len((await unit.session.execute(gone, execution_options=_UNSYNCHRONIZED)).all())
        if status != "removed" and count < _BATCH:
            chosen = select(JobRecord.id).where(*ended, young).limit(_BATCH - count).scalar_subquery()
            hidden = update(JobRecord).where(JobRecord.id.in_(chosen)).values(outcome=Outcome.REMOVED)
            hidden = hidden.returning(JobRecord.id)
            count += len((await unit.session.execute(hidden, execution_options=_UNSYNCHRONIZED)).all())
        total += count
        if count < _BATCH:
            break
    return total


async def stats(unit: UnitOfWork) -> dict[str, dict[JobStatus, int]]:
    """How many jobs are where, by domain; messages that were no envelope are `_malformed`."""
    active = await running(unit)
    domain = func.coalesce(func.split_part(JobRecord.name, ".", 1), MALFORMED)
    found = select(domain, _status(active).label("status"), func.count()).group_by(text("1"), text("2"))
    counts: dict[str, dict[JobStatus, int]] = {}
    for name, status, count in (await unit.session.execute(found)).all():
        counts.setdefault(name, dict.fromkeys(STATUSES, 0))[status] = count
    return dict(sorted(counts.items()))


_UNSYNCHRONIZED = {"synchronize_session": False}


async def _revive(unit: UnitOfWork, *wanted: ColumnElement[bool]) -> int:
    entry = {"at": datetime.now(UTC).isoformat(), "event": "retried by hand"}
    values: dict[str, Any] = {
        "outcome": None,
        "finished_at": None,
        "published_at": None,
        "attempts": 0,
        "interruptions": 0,
        "due_at": func.clock_timestamp(),
        "history": JobRecord.history + literal([entry], JSONB),
    }
    statement = update(JobRecord).where(*wanted).values(**values).returning(JobRecord.id)
    count = len((await unit.session.execute(statement, execution_options=_UNSYNCHRONIZED)).all())
    await unit.session.execute(select(func.pg_notify(outbox.CHANNEL, "")))
    return count


async def _lock(unit: UnitOfWork, job_id: UUID) -> JobRecord:
    await unit.session.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
    try:
        return await _get(unit, select(JobRecord).where(JobRecord.job_id == job_id).with_for_update())
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
            raise ConflictError("The job is running; look again when it has ended") from None
        raise


async def _get(unit: UnitOfWork, statement: Select[tuple[JobRecord]]) -> JobRecord:
    found: JobRecord | None = await unit.session.scalar(statement)
    if found is None:
        raise NotFoundError("There is no such job")
    return found
