"""Effects that happen once, however often their job is delivered."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from uuid import UUID

from prometheus_client import Counter
from pydantic import BaseModel, ValidationError
from sqlalchemy import ARRAY, Uuid, bindparam, func, text
from sqlalchemy.dialects.postgresql import insert

from observability import get_logger
from service.db.jobs.batching import Batched
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

# Written out: SQLAlchemy compiles a statement with ON CONFLICT each time, which costs more than the rest.
_END = text(
    "UPDATE job SET outcome = 'completed', finished_at = clock_timestamp()"
    " WHERE job_id = ANY(:job_ids) AND outcome IS NULL RETURNING job_id"
).bindparams(bindparam("job_ids", type_=ARRAY(Uuid())))
_ENDED = text("SELECT job_id FROM job WHERE job_id = ANY(:job_ids) AND outcome IS NOT NULL").bindparams(
    bindparam("job_ids", type_=ARRAY(Uuid()))
)


class Effects:
    """Performs jobs: finds the handler, validates the payload, and ends the job with its effect."""

    def __init__(self, database: Database, handlers: Iterable[Handler], duplicates: Counter) -> None:
        """`duplicates` counts deliveries of jobs that had ended, by `job_name`."""
        self._database = database
        self._handlers: Mapping[str, Handler] = {h.kind.name: h for h in handlers}
        self._duplicates = {name: duplicates.labels(name) for name in self._handlers}
        # What has no effect of its own in the database needs no transaction of its own either.
        self._ended: Batched[Job, bool] = Batched(self._have_ended)
        self._end: Batched[Job, bool] = Batched(self._end_all)

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
        if not await self._handle(handler, job, payload):
            self._duplicates[job.name].inc()
            log.info("job.duplicate", job=job.name, jobId=str(job.id))

    async def _handle(self, handler: Handler, job: Job, payload: Any) -> bool:
        """Whether the job had not ended before."""
        if isinstance(handler, RepeatableHandler):
            if await self._ended(job):
                return False
            await handler.handle(job, payload)
            return await self._end(job)
        async with self._database.unit() as unit:
            if not (await end(unit, [job]))[0]:
                return False
            await handler.handle(unit, payload)
        return True

    async def _have_ended(self, jobs: Sequence[Job]) -> list[bool]:
        found = await self._database.statement(_ENDED, {"job_ids": _ids(jobs)})
        ended = {row.job_id for row in found}
        return [job.id in ended for job in jobs]

    async def _end_all(self, jobs: Sequence[Job]) -> list[bool]:
        # Their effects were had: nothing has to be committed with them.
        found = await self._database.statement(_END, {"job_ids": _ids(jobs)})
        fresh = {row.job_id for row in found}
        if any(job.id not in fresh for job in jobs):
            async with self._database.unit() as unit:
                fresh |= await _end_strangers(unit, jobs, fresh)
        return [job.id in fresh for job in jobs]


async def end(unit: UnitOfWork, jobs: Sequence[Job]) -> list[bool]:
    """End jobs as completed; tells of each whether it had not ended before, so that its effect is to be had.

    Waits for other transactions that are ending the same. A job without a row, published past the outbox or
    forgotten by now, gets one.
    """
    fresh = set((await unit.session.execute(_END, {"job_ids": _ids(jobs)})).scalars())
    fresh |= await _end_strangers(unit, jobs, fresh)
    return [job.id in fresh for job in jobs]


def _ids(jobs: Sequence[Job]) -> list[UUID]:
    """In one order everywhere, so that nobody waits in a circle."""
    return sorted({job.id for job in jobs})


async def _end_strangers(unit: UnitOfWork, jobs: Sequence[Job], known: set[UUID]) -> set[UUID]:
    """Of the jobs that are not `known`, those that have no row are given one, as completed."""
    fresh: set[UUID] = set()
    for job in {job.id: job for job in jobs if job.id not in known}.values():
        stranger = (
            insert(JobRecord)
            .values(**row_of(job), outcome=Outcome.COMPLETED, finished_at=func.clock_timestamp())
            .on_conflict_do_nothing(index_elements=[JobRecord.job_id])
            .returning(JobRecord.job_id)
        )
        fresh |= set((await unit.session.execute(stranger)).scalars())
    return fresh


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
