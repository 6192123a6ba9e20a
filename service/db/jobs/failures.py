"""What is written down of a job that failed: that it will be tried again, or that it is a dead letter."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid5

from sqlalchemy import func, literal, select
from sqlalchemy.dialects.postgresql import JSONB, insert

from service.db.jobs.effects import row_of
from service.db.jobs.record import JobRecord, Outcome
from service.db.session import Database
from service.infra.queues.interface import Delivery, Job

_ERROR_LIMIT = 4000
_STRANGERS = UUID("0d2c4a52-1a76-4b0e-9c0e-5f1b2f3d7a10")


class Failures:
    """Each call is a transaction of its own, durable when it returns. Raises UnavailableError.

    A job that has ended meanwhile stays as it is.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def retried(self, job: Job, error: BaseException, due_at: datetime) -> None:
        """An attempt failed and the job will be tried again."""
        changes = {"due_at": due_at, "attempts": job.attempt}
        await self._write(row_of(job) | changes, _entry(error, job.attempt), **changes)

    async def interruptions(self, job: Job) -> int:
        """How often a worker had the job and did not end it, as far as is written down."""
        async with self._database.unit() as unit:
            found = select(JobRecord.interruptions).where(JobRecord.job_id == job.id)
            return await unit.session.scalar(found) or 0

    async def interrupted(self, job: Job) -> int:
        """A worker had the job and did not end it; gives how often that has happened."""
        entry = {"at": datetime.now(UTC).isoformat(), "attempt": job.attempt, "error": "interrupted"}
        found = await self._write(
            row_of(job) | {"interruptions": 1}, entry, interruptions=JobRecord.interruptions + 1
        )
        return found or 0

    async def bury(self, delivery: Delivery, job: Job | None, error: BaseException) -> None:
        """The job is given up. It is None when the message was no envelope."""
        row: dict[str, Any]
        if job is not None:
            row, attempts = row_of(job), job.attempt
        else:
            # Such a message has no ID of its own; delivered twice it is still one dead letter.
            row = {
                "job_id": uuid5(_STRANGERS, delivery.id),
                "body": delivery.body,
                "published_at": func.now(),
            }
            attempts = 1
        ended = {"outcome": Outcome.DEAD, "finished_at": func.clock_timestamp(), "attempts": attempts}
        await self._write(row | ended, _entry(error, attempts), **ended)

    async def _write(self, row: dict[str, Any], entry: dict[str, Any], **changes: Any) -> int | None:
        async with self._database.unit() as unit:
            statement = (
                insert(JobRecord)
                .values(**row, history=[entry])
                .on_conflict_do_update(
                    index_elements=[JobRecord.job_id],
                    set_=changes | {"history": JobRecord.history + literal([entry], JSONB)},
                    where=JobRecord.outcome.is_(None),
                )
                .returning(JobRecord.interruptions)
            )
            found: int | None = await unit.session.scalar(statement)
            return found


def _entry(error: BaseException, attempt: int) -> dict[str, Any]:
    text = f"{type(error).__name__}: {error}".replace("\0", "\\0")
    return {"at": datetime.now(UTC).isoformat(), "attempt": attempt, "error": text[:_ERROR_LIMIT]}
