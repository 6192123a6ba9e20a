"""Effects that happen once, however often their job is delivered."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel, ValidationError
from sqlalchemy import func
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from observability import get_logger
from service.db.base import Base
from service.db.session import Database, UnitOfWork
from service.infra.queues.interface import Job, JobKind, PermanentJobError

log = get_logger(__name__)

P = TypeVar("P", bound=BaseModel)


class JobEffect(Base):
    """A job whose effect is in the database, written in the transaction of the effect."""

    __tablename__ = "job_effect"

    job_id: Mapped[UUID] = mapped_column(unique=True)
    name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


@dataclass(frozen=True)
class JobHandler(Generic[P]):
    """What to do for a kind of job. The unit of work is committed with the job's effect."""

    kind: JobKind[P]
    handle: Callable[[UnitOfWork, P], Awaitable[None]]


class Effects:
    """Performs jobs: finds the handler, validates the payload, and has the effect once per job ID."""

    def __init__(self, database: Database, handlers: Iterable[JobHandler[Any]]) -> None:
        self._database = database
        self._handlers: Mapping[str, JobHandler[Any]] = {h.kind.name: h for h in handlers}

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
        async with self._database.unit() as unit:
            if await _claim(unit, job):
                await handler.handle(unit, payload)
            else:
                log.info("job.duplicate", job=job.name, jobId=str(job.id))


async def _claim(unit: UnitOfWork, job: Job) -> bool:
    """Whether this transaction is to have the effect. Waits for another one that is trying the same job."""
    statement = (
        insert(JobEffect)
        .values(job_id=job.id, name=job.name)
        .on_conflict_do_nothing(index_elements=[JobEffect.job_id])
        .returning(JobEffect.id)
    )
    return (await unit.session.execute(statement)).first() is not None
