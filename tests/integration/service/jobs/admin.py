"""An operator's client, and jobs in every state."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx

from service.db.jobs.effects import Effects, JobHandler
from service.db.jobs.failures import Failures
from service.db.jobs.record import JobRecord
from service.db.session import UnitOfWork
from service.features.transactions.settlement import SETTLEMENT, SettlementPayload
from service.infra.queues.interface import Delivery, Job
from tests.integration.service.harness import Service

TOKEN = "an-operators-token-0123456789-abcdefgh"
PATH = "/v1/admin/jobs"


@dataclass(frozen=True)
class Operator:
    """Calls the administration and gives what it answers."""

    http: httpx.AsyncClient
    token: str = field(default=TOKEN, repr=False)

    async def ask(self, method: str, path: str = "", **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}"}
        return await self.http.request(method, PATH + path, headers=headers, **options)

    async def data(self, method: str, path: str = "", **options: Any) -> Any:
        answer = await self.ask(method, path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def refused(self, method: str, path: str = "", **options: Any) -> tuple[int, str]:
        answer = await self.ask(method, path, **options)
        return answer.status_code, answer.json()["error"]["code"]

    async def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = await self.data("GET", "/stats")
        return found

    async def listed(self, **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.data("GET", params=query)
        return found


async def enqueue(service: Service, count: int = 1, **options: Any) -> list[UUID]:
    payloads = [SettlementPayload(transaction_id=uuid4()) for _ in range(count)]
    async with service.container.database.unit() as unit:
        return await service.container.outbox.add_bulk(unit, SETTLEMENT, payloads, **options)


async def job_of(service: Service, job_id: UUID) -> Job:
    """The envelope of a job that is in the outbox."""
    [found] = [row for row in await service.rows(JobRecord) if row.job_id == job_id]
    made: Job = found.job({})
    return made


async def bury(service: Service, job_id: UUID | None = None, body: bytes = b"") -> UUID:
    """A dead letter: a job, or a message that was no envelope."""
    job = None if job_id is None else await job_of(service, job_id)
    before = {row.job_id for row in await service.rows(JobRecord)}
    delivery = Delivery(str(uuid4()), body if job is None else job.encode())
    await Failures(service.container.database).bury(delivery, job, ValueError("it cannot be"))
    if job_id is not None:
        return job_id
    [made] = {row.job_id for row in await service.rows(JobRecord)} - before
    return UUID(str(made))


@dataclass
class Gate:
    """A handler that stops in the middle of its effect until it is let through."""

    inside: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    effects: int = 0

    async def handle(self, unit: UnitOfWork, payload: SettlementPayload) -> None:
        self.inside.set()
        await self.open.wait()
        self.effects += 1

    @asynccontextmanager
    async def performing(self, service: Service, job: Job) -> AsyncIterator["asyncio.Task[None]"]:
        """The job's effect has begun and is not committed inside the block, until the gate opens."""
        counter = service.container.telemetry.metrics.counter(
            "test_duplicate", "For this test.", ("job_name",)
        )
        effects = Effects(service.container.database, [JobHandler(SETTLEMENT, self.handle)], counter)
        task = asyncio.create_task(effects.perform(job))
        try:
            await asyncio.wait_for(self.inside.wait(), 20)
            yield task
        finally:
            self.open.set()
            await task


def now() -> datetime:
    return datetime.now(UTC)
