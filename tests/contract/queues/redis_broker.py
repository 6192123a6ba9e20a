"""The `redis` engine for the contract: one database of the run's private server."""

import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis.asyncio import Redis

from service.infra.queues.interface import JobQueue
from service.infra.queues.redis import RedisQueue
from service.infra.redis import RedisClient, open_redis
from service.settings import RedisSettings
from tests.contract.queues.harness import LEASE

_DATABASE = "6"
_NOBODY = "redis://127.0.0.1:1/0"


def open_queue(
    url: str, name: str, lease_seconds: float = LEASE, poll_seconds: float = 0.05, **options: Any
) -> RedisQueue:
    """The queue on a client of its own."""
    return RedisQueue(client(url), name=name, poll=poll_seconds, lease=lease_seconds, **options)


def client(url: str) -> RedisClient:
    settings = {"url": url, "retries": 0, "connect_timeout_seconds": 2, "command_timeout_seconds": 2}
    return open_redis(RedisSettings.model_validate(settings), name="contract")


class RedisBroker:
    """A queue with a name of its own in a database that no other test uses at the same time."""

    engine = "redis"

    def __init__(self, url: str) -> None:
        self.url, self.name = url, f"contract:{uuid.uuid4().hex[:8]}"
        self.redis: RedisClient = Redis.from_url(url)
        self._opened: list[RedisQueue] = []

    def open(self, *, lease_seconds: float = LEASE, poll_seconds: float = 0.05, **changes: Any) -> RedisQueue:
        queue = open_queue(self.url, self.name, lease_seconds, poll_seconds, **changes)
        self._opened.append(queue)
        return queue

    def away(self) -> JobQueue:
        queue = open_queue(_NOBODY, self.name)
        self._opened.append(queue)
        return queue

    def recipe(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}:open_queue", {"url": self.url, "name": self.name}

    async def put_raw(self, body: bytes) -> None:
        # arq's own way in, from which the engine takes jobs too.
        await self.open().client.enqueue_job("run", body, _job_id=str(uuid.uuid4()))

    async def close(self) -> None:
        for queue in self._opened:
            await queue.close()
            await queue.client.aclose()
        await self.redis.aclose()


@pytest.fixture
async def redis_broker(redis_url: str) -> AsyncIterator[RedisBroker]:
    broker = RedisBroker(re.sub(r"/[^/]*$", f"/{_DATABASE}", redis_url))
    await broker.redis.flushdb()
    yield broker
    await broker.close()
