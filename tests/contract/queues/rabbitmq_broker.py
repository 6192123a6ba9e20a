"""The `rabbitmq` engine for the contract: a broker of the run's own, and names of its own for each test."""

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aio_pika
import aiormq
import pytest
from pydantic import SecretStr

from compose import rabbitmq
from compose.model import MissingProgramError
from compose.native import Stack
from service.infra.queues.interface import JobQueue
from service.infra.queues.rabbitmq import QueueType, RabbitQueue

_NOBODY = "amqp://user:secret@127.0.0.1:1/%2F"


def open_queue(
    url: str, name: str, queue_type: QueueType = "classic", lease_seconds: float = 0, **options: Any
) -> RabbitQueue:
    """The queue over connections of its own. It has no lease: the broker sees a worker's connection end."""
    return RabbitQueue(SecretStr(url), name=name, queue_type=queue_type, **options)


def needs_rabbitmq() -> None:
    """Skip where there is no RabbitMQ, saying why."""
    if not os.environ.get("AMQP_URL"):
        try:
            rabbitmq.server()
            rabbitmq.epmd()
        except MissingProgramError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def amqp_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of the broker at AMQP_URL, or of one that lives as long as the test run."""
    needs_rabbitmq()
    if url := os.environ.get("AMQP_URL"):
        yield url
        return
    folder: Path = tmp_path_factory.mktemp("rabbitmq")
    with Stack(folder, only=("rabbitmq",)) as stack:
        yield stack.endpoints()["rabbitmq"]


class RabbitBroker:
    """Everything in the broker under one prefix, removed at the end."""

    engine = "rabbitmq"

    def __init__(self, url: str, queue_type: QueueType = "classic") -> None:
        self.url, self.name, self.queue_type = url, f"contract-{uuid.uuid4().hex[:8]}", queue_type
        self._opened: list[RabbitQueue] = []

    def open(self, *, lease_seconds: float = 0, **changes: Any) -> RabbitQueue:
        queue = open_queue(self.url, self.name, **{"queue_type": self.queue_type, **changes})
        self._opened.append(queue)
        return queue

    def away(self) -> JobQueue:
        queue = open_queue(_NOBODY, self.name)
        self._opened.append(queue)
        return queue

    def recipe(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}:open_queue", {"url": self.url, "name": self.name, "queue_type": self.queue_type}

    async def put_raw(self, body: bytes) -> None:
        queue = self.open()
        await queue.ping()
        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            await channel.default_exchange.publish(
                aio_pika.Message(body), f"{queue.topology.prefix}.maintenance"
            )

    async def close(self) -> None:
        for queue in self._opened:
            await queue.close()
        topology = open_queue(self.url, self.name, self.queue_type).topology
        async with await aio_pika.connect(self.url) as connection:
            channel: aiormq.abc.AbstractChannel = await (await connection.channel()).get_underlay_channel()
            for one in topology.queues:
                await channel.queue_delete(one.name)
            for exchange in topology.exchanges:
                await channel.exchange_delete(exchange)


@pytest.fixture
async def rabbitmq_broker(amqp_url: str) -> AsyncIterator[RabbitBroker]:
    broker = RabbitBroker(amqp_url)
    yield broker
    await broker.close()
