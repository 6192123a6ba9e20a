"""Jobs written in the transaction that wants them done: either both are there, or neither."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Index, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from observability import JobTelemetry, current
from service.db.base import Base
from service.db.session import UnitOfWork
from service.infra.queues.interface import Job, JobKind, JobOptions, P


class OutboxEntry(Base):
    """A job on its way to the queue. `published_at` is set once the broker has confirmed it."""

    __tablename__ = "outbox_entry"
    __table_args__ = (
        Index("ix_outbox_entry_pending", "id", postgresql_where=text("published_at IS NULL")),
        Index(
            "ix_outbox_entry_published_at", "published_at", postgresql_where=text("published_at IS NOT NULL")
        ),
    )

    job_id: Mapped[UUID] = mapped_column(unique=True)
    name: Mapped[str]
    payload: Mapped[dict[str, Any]] = mapped_column(JSONB)
    options: Mapped[dict[str, Any]] = mapped_column(JSONB)
    meta: Mapped[dict[str, str]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    published_at: Mapped[datetime | None]

    def job(self, carrier: dict[str, str]) -> Job:
        """The envelope, with the trace context of its publishing."""
        return Job(
            id=self.job_id,
            name=self.name,
            payload=self.payload,
            options=JobOptions.model_validate(self.options),
            meta=self.meta | carrier,
            enqueued_at=datetime.now(UTC),
        )


@dataclass(frozen=True, slots=True)
class OutboxStats:
    """Entries not published yet, and the age of the oldest of them (seconds; 0 when there is none)."""

    pending: int
    oldest_age: float


class Outbox:
    """Where operations enqueue."""

    def __init__(self, telemetry: JobTelemetry, *, source: str) -> None:
        self._telemetry = telemetry
        self._source = source

    async def add(self, unit: UnitOfWork, kind: JobKind[P], payload: P) -> UUID:
        """Enqueue a job with this unit of work; gives its ID."""
        job_id = uuid4()
        caller = current()
        with self._telemetry.outbox(kind.name, str(job_id)) as carrier:
            meta = {
                "correlationId": caller.request_id or str(job_id),
                "userId": caller.user_id or "system",
                "tenant": caller.tenant,
                "source": self._source,
                "timestamp": datetime.now(UTC).isoformat(),
                **carrier,
            }
            unit.session.add(
                OutboxEntry(
                    job_id=job_id,
                    name=kind.name,
                    payload=payload.model_dump(mode="json", by_alias=True),
                    options=kind.options.model_dump(mode="json", by_alias=True),
                    meta=meta,
                )
            )
            await unit.session.flush()
        return job_id


async def claim_pending(unit: UnitOfWork, limit: int) -> list[OutboxEntry]:
    """The oldest entries that no other relay holds, locked until the unit ends."""
    pending = (
        select(OutboxEntry)
        .where(OutboxEntry.published_at.is_(None))
        .order_by(OutboxEntry.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    return list(await unit.session.scalars(pending))


async def mark_published(unit: UnitOfWork, entries: list[OutboxEntry]) -> None:
    ids = [entry.id for entry in entries]
    await unit.session.execute(
        update(OutboxEntry)
        .where(OutboxEntry.id.in_(ids))
        .values(published_at=func.now())
        .execution_options(synchronize_session=False)
    )


async def prune(unit: UnitOfWork, keep_seconds: int) -> int:
    """Delete what was published longer ago; gives the number of entries."""
    old = delete(OutboxEntry).where(
        OutboxEntry.published_at < func.now() - func.make_interval(0, 0, 0, 0, 0, 0, keep_seconds)
    )
    return len((await unit.session.execute(old.returning(OutboxEntry.id))).all())


async def stats(unit: UnitOfWork) -> OutboxStats:
    row = (
        await unit.session.execute(
            select(
                func.count(),
                func.coalesce(func.extract("epoch", func.now() - func.min(OutboxEntry.created_at)), 0),
            ).where(OutboxEntry.published_at.is_(None))
        )
    ).one()
    return OutboxStats(row[0], max(0.0, float(row[1])))
