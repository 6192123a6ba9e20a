"""Which workers there are and what they run, told by themselves, for whoever asks across processes."""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from observability import get_logger
from service.db.base import Base
from service.db.session import Database, UnitOfWork
from service.errors import UnavailableError
from service.infra.queues.interface import Job
from service.infra.queues.runner import Perform

log = get_logger(__name__)

_RATE_SECONDS = 30.0
_PATIENCE_SECONDS = 5.0


class WorkerPresence(Base):
    """A worker. `running` has the IDs of its jobs and their names; `rate` is jobs done a second, lately.

    The row counts until `expires_at`, which each heartbeat puts off.
    """

    __tablename__ = "worker_presence"

    name: Mapped[str]
    concurrency: Mapped[int]
    running: Mapped[dict[str, str]] = mapped_column(JSONB)
    rate: Mapped[float]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    heartbeat_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]


@dataclass(frozen=True, slots=True)
class Capacity:
    """The workers together: attempts that may run at once, those that do, and jobs done a second."""

    workers: int
    concurrency: int
    running: int
    rate: float

    @property
    def saturation(self) -> float:
        """0 idle, 1 no room; 1 too when there is no worker."""
        return min(1.0, self.running / self.concurrency) if self.concurrency else 1.0

    @classmethod
    def of(cls, workers: Sequence[WorkerPresence]) -> "Capacity":
        return cls(
            len(workers),
            sum(worker.concurrency for worker in workers),
            sum(len(worker.running) for worker in workers),
            sum(worker.rate for worker in workers),
        )


class Presence:
    """One worker's. It writes its row every `seconds`; four missed in a row, and it is taken for dead."""

    def __init__(self, database: Database, *, name: str, concurrency: int, seconds: float) -> None:
        self._database = database
        self._name, self._concurrency, self._seconds = name, concurrency, seconds
        self._life = timedelta(seconds=4 * seconds + _PATIENCE_SECONDS)
        self._running: dict[UUID, str] = {}
        self._done = 0
        self._sum = self._weight = 0.0
        self._measured = time.monotonic()
        self._row: int | None = None

    def performing(self, perform: Perform) -> Perform:
        """`perform`, taken down while it runs."""

        async def noted(job: Job) -> None:
            self._running[job.id] = job.name
            try:
                await perform(job)
                self._done += 1
            finally:
                self._running.pop(job.id, None)

        return noted

    async def run(self) -> None:
        """Heartbeats until cancelled."""
        while True:
            try:
                await self.beat()
            except UnavailableError as error:
                log.debug("presence.unavailable", reason=error.message)
            await asyncio.sleep(self._seconds)

    async def beat(self) -> None:
        """One heartbeat, which also clears away the rows of the dead. Raises UnavailableError."""
        now = func.clock_timestamp()
        values: dict[str, Any] = {
            "running": {str(job_id): name for job_id, name in self._running.items()},
            "rate": self._rate(),
            "heartbeat_at": now,
            "expires_at": now + self._life,
        }
        async with self._database.unit() as unit:
            mine = update(WorkerPresence).where(WorkerPresence.id == self._row).values(**values)
            found = await unit.session.execute(mine.returning(WorkerPresence.id))
            if found.first() is None:
                # The first time, or others took us for dead.
                fixed = {"name": self._name, "concurrency": self._concurrency}
                made = insert(WorkerPresence).values(**fixed, **values).returning(WorkerPresence.id)
                self._row = await unit.session.scalar(made)
            gone = select(WorkerPresence.id).where(WorkerPresence.expires_at < now)
            gone = gone.with_for_update(skip_locked=True)
            await unit.session.execute(delete(WorkerPresence).where(WorkerPresence.id.in_(gone)))

    async def leave(self) -> None:
        """Take the row away, at the end of a worker that ends by itself."""
        try:
            async with self._database.unit() as unit:
                await unit.session.execute(delete(WorkerPresence).where(WorkerPresence.id == self._row))
        except UnavailableError as error:
            log.debug("presence.unavailable", reason=error.message)

    def _rate(self) -> float:
        """Jobs done a second: a mean in which the past fades over half a minute, unbiased from the start."""
        now = time.monotonic()
        passed, self._measured = now - self._measured, now
        done, self._done = self._done, 0
        fade = math.exp(-passed / _RATE_SECONDS)
        self._sum, self._weight = self._sum * fade + done, self._weight * fade + passed
        return self._sum / self._weight if self._weight > 0 else 0.0


async def workers(unit: UnitOfWork) -> list[WorkerPresence]:
    """Those that live, the oldest first."""
    alive = select(WorkerPresence).where(WorkerPresence.expires_at > func.clock_timestamp())
    return list(await unit.session.scalars(alive.order_by(WorkerPresence.id)))
