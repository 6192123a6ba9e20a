"""Effects that happen once, however often their job is delivered."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from prometheus_client import Counter
from pydantic import BaseModel, ValidationError
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from observability import get_logger
from service.db.jobs.record import JobRecord, Outcome
from service.db.session import Database, UnitOfWork
from service.infra.queues.interface import Job, JobKind, PermanentJobError

log = get_logger(__name__)

P = TypeVar("P", bound=BaseModel)


@dataclass(frozen=True)
class JobHandler(Generic[P]):
    """What to do for a kind of job. The unit of work is committed with the job's end: the effect is once."""

    kind: JobKind[P]
    handle: Callable[[UnitOfWork, P], Awaitable[None]]


@dataclass(frozen=True)
class RepeatableHandler(Generic[P]):
    """For an effect outside of the database, which may happen again: `handle` runs before the job is ended.

    It is given the job, whose ID the other side may use to tell a repetition.
    """

    kind: JobKind[P]
    handle: Callable[[Job, P], Awaitable[None]]


Handler = JobHandler[Any] | RepeatableHandler[Any]


class Effects:
    """Performs jobs: finds the handler, validates the payload, and ends the job with its effect."""

    def __init__(self, database: Database, handlers: Iterable[Handler], duplicates: Counter) -> None:
        """`duplicates` counts deliveries of jobs that had ended, by `job_name`."""
        self._database = database
        self._handlers: Mapping[str, Handler] = {h.kind.name: h for h in handlers}
        self._duplicates = {name: duplicates.labels(name) for name in self._handlers}

    async def perform(self, job: Job) -> None:
        """Have the job's effect. Raises PermanentJobError for a name or payload that no retry can mend."""
        handler = self._handlers.get(job.name)
        if handler is None:
            raise PermanentJobError(f"no job is named {job.name}")
        try:
            payload = handler.kind.payload.model_validate(job.payload)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors()[:5])
            raise PermanentJobError(f"payload is not valid: {faults}") from None
        if isinstance(handler, RepeatableHandler):
            async with self._database.unit() as unit:
                if await _ended(unit, job):
                    return self._duplicate(job)
            await handler.handle(job, payload)
        async with self._database.unit() as unit:
            if not await _end(unit, job):
                return self._duplicate(job)
            if isinstance(handler, JobHandler):
                await handler.handle(unit, payload)
        return None

    def _duplicate(self, job: Job) -> None:
        self._duplicates[job.name].inc()
        log.info("job.duplicate", job=job.name, jobId=str(job.id))


async def _ended(unit: UnitOfWork, job: Job) -> bool:
    found = select(JobRecord.outcome).where(JobRecord.job_id == job.id)
    return await unit.session.scalar(found) is not None


async def _end(unit: UnitOfWork, job: Job) -> bool:
    """Whether this transaction is to have the effect. Waits for another one that is trying the same job.

    A job without a row, published past the outbox or forgotten by now, gets one.
    """
    ended = {"outcome": Outcome.COMPLETED, "finished_at": func.clock_timestamp()}
    statement = (
        insert(JobRecord)
        .values(**row_of(job), **ended)
        .on_conflict_do_update(
            index_elements=[JobRecord.job_id], set_=ended, where=JobRecord.outcome.is_(None)
        )
        .returning(JobRecord.id)
    )
    return (await unit.session.execute(statement)).first() is not None


def row_of(job: Job) -> dict[str, Any]:
    """The columns of a job that has no row yet."""
    return {
        "job_id": job.id,
        "name": job.name,
        "payload": job.payload,
        "options": job.options.model_dump(mode="json", by_alias=True),
        "meta": job.meta,
        "due_at": job.due_at,
        "published_at": func.now(),
        "attempts": job.attempt - 1,
    }
