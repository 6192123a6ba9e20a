"""The table of jobs: one row for each, from its enqueueing to some time after its end."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Index, LargeBinary, SmallInteger, String, func, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Base
from service.infra.queues.interface import Job, JobOptions


class Outcome(StrEnum):
    """How a job ended. A dead one is in the dead-letter queue; a failed one was there and is out of it."""

    COMPLETED = "completed"
    DEAD = "dead"
    FAILED = "failed"
    REMOVED = "removed"


class JobRecord(Base):
    """A job. `published_at` is set while a broker has confirmed to hold it, `outcome` once it has ended.

    `attempts` counts those that failed; `interruptions` the workers that took the job and did not end it;
    `history` holds of each of them when it was and what went wrong. `body` is what was delivered, for a
    message that is no envelope: it has neither name nor payload.
    """

    __tablename__ = "job"
    __table_args__ = (
        Index("ix_job_pending", "id", postgresql_where=text("published_at IS NULL AND outcome IS NULL")),
        Index("ix_job_open", "due_at", postgresql_where=text("published_at IS NOT NULL AND outcome IS NULL")),
        Index("ix_job_ended", "outcome", "name", "finished_at", postgresql_where=text("outcome IS NOT NULL")),
    )

    job_id: Mapped[UUID] = mapped_column(unique=True)
    name: Mapped[str | None]
    payload: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    options: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=text("'{}'"))
    meta: Mapped[dict[str, str]] = mapped_column(JSONB, server_default=text("'{}'"))
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    due_at: Mapped[datetime] = mapped_column(server_default=func.now())
    published_at: Mapped[datetime | None]
    attempts: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    interruptions: Mapped[int] = mapped_column(SmallInteger, server_default=text("0"))
    history: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'"))
    outcome: Mapped[str | None] = mapped_column(String(10))
    finished_at: Mapped[datetime | None]

    def job(self, carrier: dict[str, str], *, ahead: timedelta = timedelta()) -> Job:
        """The envelope, with the trace context of its publishing.

        `ahead` is by how much the database's clock is ahead of this process's, by which `due_at` is given: a
        queue takes the difference from its own time.
        """
        return Job(
            id=self.job_id,
            name=self.name or "",
            payload=self.payload or {},
            attempt=self.attempts + 1,
            options=JobOptions.model_validate(self.options),
            meta=self.meta | carrier,
            due_at=self.due_at - ahead,
        )
