"""This project's engines as they are, through `JobQueue`: the envelope, batches to publish, a runner.

What the service puts around an engine (outbox, effects) is in `outbox`.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bench.jobs.contender import Run, Send, Setup
from service.infra.queues.file import FileQueue
from service.infra.queues.interface import Delivery, Job, JobQueue
from service.infra.queues.rabbitmq import RabbitQueue
from service.infra.queues.redis import RedisQueue
from service.infra.redis import open_redis
from service.settings import RedisSettings

NAME = "maintenance.benchmark.v1"
POLL, LEASE = 0.05, 10.0  # the service's own defaults


class Engine:
    """One engine; the service's settings but for the concurrency."""

    def __init__(self, opened: Callable[[Setup], JobQueue]) -> None:
        self._opened = opened

    @asynccontextmanager
    async def client(self, setup: Setup) -> AsyncIterator[Send]:
        queue: Any = self._opened(setup)

        async def send(numbers: Sequence[int]) -> None:
            for refused in await queue.publish([_job(number) for number in numbers]):
                if refused is not None:
                    raise refused

        try:
            yield send
        finally:
            await queue.close()

    async def work(self, setup: Setup, run: Run) -> None:
        async def deliver(delivery: Delivery) -> None:
            job = Job.decode(delivery.body)
            async with asyncio.timeout(job.options.timeout_seconds):
                await run(job.payload["number"])

        await self._opened(setup).consume(deliver, concurrency=setup.concurrency)


def _job(number: int) -> Job:
    return Job(id=uuid.uuid4(), name=NAME, payload={"number": number}, due_at=datetime.now(UTC))


def open_file_queue(setup: Setup) -> JobQueue:
    folder = Path(setup.broker)
    folder.mkdir(exist_ok=True)
    return FileQueue(folder / f"{setup.queue}.db", name=setup.queue, poll=POLL, lease=LEASE)


def open_rabbitmq_queue(setup: Setup) -> JobQueue:
    return RabbitQueue(SecretStr(setup.broker), name=setup.queue)


def open_redis_queue(setup: Setup) -> JobQueue:
    client = open_redis(RedisSettings.model_validate({"url": setup.broker}), name="bench")
    return RedisQueue(client, name=setup.queue, poll=POLL, lease=LEASE)


redis = Engine(open_redis_queue)
file = Engine(open_file_queue)
rabbitmq = Engine(open_rabbitmq_queue)
