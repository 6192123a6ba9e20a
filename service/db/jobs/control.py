"""What operators have paused: rows that every worker follows, so that a pause outlives any of them."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import String, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Base
from service.db.jobs import outbox
from service.db.session import UnitOfWork

CHANNEL = "yardstick_queue_control"
"""Notified by every transaction that pauses or resumes something, at its commit."""

EVERYTHING = "*"


class QueuePause(Base):
    """A pause that is in force. `scope` is `*` for the whole queue, or a domain of jobs."""

    __tablename__ = "queue_pause"

    scope: Mapped[str] = mapped_column(String(50), unique=True)
    reason: Mapped[str] = mapped_column(String(200))
    paused_at: Mapped[datetime] = mapped_column(server_default=func.now())


@dataclass(frozen=True, slots=True)
class Paused:
    """What stands still: everything, or some domains."""

    whole: bool = False
    domains: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return self.whole or bool(self.domains)


async def pause(unit: UnitOfWork, scope: str, reason: str) -> None:
    """Again: the first pause stands, with its reason."""
    values = {"scope": scope, "reason": reason}
    statement = insert(QueuePause).values(**values).on_conflict_do_nothing(index_elements=[QueuePause.scope])
    await unit.session.execute(statement)
    await unit.session.execute(select(func.pg_notify(CHANNEL, "")))


async def resume(unit: UnitOfWork, scope: str) -> bool:
    """Whether it was paused. The whole queue's pause and a domain's are lifted each by itself."""
    lifted = delete(QueuePause).where(QueuePause.scope == scope).returning(QueuePause.id)
    found = (await unit.session.execute(lifted)).first() is not None
    await unit.session.execute(select(func.pg_notify(CHANNEL, ""), func.pg_notify(outbox.CHANNEL, "")))
    return found


async def pauses(unit: UnitOfWork) -> list[QueuePause]:
    """The pauses in force, the oldest first."""
    return list(await unit.session.scalars(select(QueuePause).order_by(QueuePause.paused_at, QueuePause.id)))


async def paused(unit: UnitOfWork) -> Paused:
    scopes = frozenset(await unit.session.scalars(select(QueuePause.scope)))
    return Paused(EVERYTHING in scopes, scopes - {EVERYTHING})
