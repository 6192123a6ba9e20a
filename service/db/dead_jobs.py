"""Where jobs end that were given up: the message as it was, and why."""

from datetime import datetime

from sqlalchemy import LargeBinary, func
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Base
from service.db.session import Database
from service.infra.queues.interface import Delivery, Job

_ERROR_LIMIT = 4000


class DeadJob(Base):
    """A dead letter. The body is kept as bytes: a malformed message need not be text."""

    __tablename__ = "dead_job"

    job_id: Mapped[str] = mapped_column(index=True)
    name: Mapped[str | None]
    attempts: Mapped[int]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    error: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Graveyard:
    """Stores dead jobs in the database, in a transaction of their own."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def bury(self, delivery: Delivery, job: Job | None, error: BaseException) -> None:
        """Durable when it returns. Raises UnavailableError."""
        text = f"{type(error).__name__}: {error}".replace("\0", "\\0")
        async with self._database.unit() as unit:
            unit.session.add(
                DeadJob(
                    job_id=delivery.id.replace("\0", "\\0"),
                    name=job.name if job else None,
                    attempts=job.attempt if job else 1,
                    body=delivery.body,
                    error=text[:_ERROR_LIMIT],
                )
            )
