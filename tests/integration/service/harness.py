"""The service in the test's own process, on real servers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy import func, select

from service.app import create_app
from service.container import Container, open_container
from service.db.base import Base
from service.db.jobs.record import JobRecord, Outcome
from service.settings import Settings
from service.worker import run_jobs

T = TypeVar("T")

BODY = {"amount": "12.50", "currency": "EUR", "reference": "invoice 1"}


@dataclass
class Service:
    """A container, a client for its API, and the spans it made."""

    container: Container
    http: httpx.AsyncClient
    exporter: InMemorySpanExporter

    async def create(self, **changes: str) -> dict[str, Any]:
        answer = await self.http.post("/v1/transactions", json=BODY | changes)
        assert answer.status_code == 201, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def transaction(self, transaction_id: str) -> dict[str, Any]:
        answer = await self.http.get(f"/v1/transactions/{transaction_id}")
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    async def settled(self, transaction_id: str, within: float = 20) -> dict[str, Any]:
        async def look() -> dict[str, Any] | None:
            data = await self.transaction(transaction_id)
            return data if data["status"] == "settled" else None

        return await eventually(look, within=within)

    async def count(self, table: type[Base]) -> int:
        async with self.container.database.unit() as unit:
            return await unit.session.scalar(select(func.count()).select_from(table)) or 0

    async def ended(self, outcome: Outcome = Outcome.COMPLETED) -> int:
        """How many jobs ended so."""
        return len([row for row in await self.rows(JobRecord) if row.outcome == outcome])

    async def rows(self, table: type[Base]) -> list[Any]:
        async with self.container.database.unit() as unit:
            return list(await unit.session.scalars(select(table)))

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        return [s for s in self.exporter.get_finished_spans() if name is None or s.name == name]

    def metric(self, name: str, labels: Mapping[str, str] | None = None) -> float | None:
        return self.container.telemetry.registry.get_sample_value(name, dict(labels or {}))

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """The worker runs inside the block; at its end the subscribers have heard what it published."""
        stopping = asyncio.Event()
        task = asyncio.create_task(run_jobs(self.container, stopping))
        try:
            yield
        finally:
            stopping.set()
            await task
        await self.container.bus.drained()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Service]:
    """The API over its container, without a port."""
    exporter = InMemorySpanExporter()
    async with open_container(settings, "api") as container:
        assert container.telemetry.provider is not None
        container.telemetry.provider.add_span_processor(SimpleSpanProcessor(exporter))
        transport = httpx.ASGITransport(create_app(container), raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
            yield Service(container, http, exporter)


async def eventually(look: Callable[[], Awaitable[T | None]], within: float = 20, every: float = 0.02) -> T:
    """What `look` finds once it finds something."""
    async with asyncio.timeout(within):
        while True:
            found = await look()
            if found:
                return found
            await asyncio.sleep(every)
