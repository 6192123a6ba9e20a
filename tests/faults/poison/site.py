"""A worker of the service on an engine, and ways to give it what does not belong there."""

import asyncio
import json
import re
import sqlite3
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aio_pika
import asyncpg
from arq import create_pool
from arq.connections import RedisSettings

from service.tasks import end
from tests.faults.kills import roles
from tests.faults.kills.members import Member, Nursery


@dataclass
class Site:
    """One worker, restarted whenever it dies; `connection` is to its database."""

    engine: str
    variables: dict[str, str]
    connection: Any
    worker: Member
    _number: int = 0

    async def enqueue(self, name: str, payload: dict[str, Any], *, due_in: float = 0) -> uuid.UUID:
        """A row of the outbox, as any version of the service may have written it."""
        job, self._number = uuid.uuid4(), self._number + 1
        await self.connection.execute(
            "INSERT INTO job (id, job_id, name, payload, due_at)"
            " VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))",
            self._number, job, name, json.dumps(payload), due_in,
        )  # fmt: skip
        return job

    async def tallies(self, count: int, *, due_in: float = 0) -> list[uuid.UUID]:
        """Jobs with nothing wrong with them."""
        payload = {"transaction_id": str(uuid.uuid4())}
        return [await self.enqueue(roles.TALLY.name, payload, due_in=due_in) for _ in range(count)]

    async def row(self, job: uuid.UUID) -> Any:
        return await self.connection.fetchrow("SELECT * FROM job WHERE job_id = $1", job)

    async def ended(self, job: uuid.UUID, within: float = 60) -> Any:
        """Its row, once it has ended."""

        async def look() -> Any:
            row = await self.row(job)
            return row if row and row["outcome"] else None

        return await eventually(look, within)

    async def completed(self, jobs: list[uuid.UUID], within: float = 60) -> None:
        """Returns once all have, each with one effect."""
        for job in jobs:
            assert (await self.ended(job, within))["outcome"] == "completed", await self.row(job)
        found = await self.connection.fetch(
            "SELECT job_id, count(*) FROM effect WHERE job_id = ANY($1) GROUP BY 1", jobs
        )
        assert [count for _, count in found] == [1] * len(jobs)

    async def put_raw(self, body: bytes) -> None:
        """Into the broker, past everything that the service would check."""
        name = self.variables["QUEUE_NAME"]
        match self.engine:
            case "redis":
                pool = await create_pool(
                    RedisSettings.from_dsn(self.variables["REDIS_URL"]),
                    job_serializer=lambda message: message["a"][0],
                    default_queue_name=name,
                )
                await pool.enqueue_job("run", body)
                await pool.aclose()
            case "rabbitmq":
                async with await aio_pika.connect(self.variables["QUEUE_RABBITMQ_URL"]) as broker:
                    channel = await broker.channel()
                    await channel.default_exchange.publish(aio_pika.Message(body), f"{name}.maintenance")
            case _:
                with closing(sqlite3.connect(self.variables["QUEUE_FILE_PATH"], timeout=30)) as file, file:
                    file.execute(
                        "INSERT INTO jobs(job_id, priority, due, body) VALUES (?, 2, 0, ?)",
                        (str(uuid.uuid4()), body),
                    )


@asynccontextmanager
async def working(
    nursery: Nursery, engine: str, variables: dict[str, str], folder: Path
) -> AsyncIterator[Site]:
    """The site, with its worker alive inside the block."""
    connection = await asyncpg.connect(variables["DATABASE_URL"])
    await connection.execute(roles.EFFECTS)
    worker = Member(nursery, "worker-1", variables, folder)
    living = asyncio.create_task(worker.live(), name="worker-1")
    site = Site(engine, variables, connection, worker)
    try:
        await site.completed(await site.tallies(1))
        yield site
    finally:
        await end(living)
        await worker.gone()
        await connection.close()


async def eventually(look: Callable[[], Awaitable[Any]], within: float) -> Any:
    """What `look` finds once it finds something."""
    async with asyncio.timeout(within):
        while not (found := await look()):  # noqa: ASYNC110 - asks a server
            await asyncio.sleep(0.1)
        return found


def at(url: str, database: str) -> str:
    """The same server, another database."""
    return re.sub(r"/[^/]*$", f"/{database}", url)
