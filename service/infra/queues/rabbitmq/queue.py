"""The `JobQueue` on RabbitMQ."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from aio_pika.abc import AbstractChannel
from pydantic import SecretStr

from service.infra.queues.domains import DOMAINS
from service.infra.queues.interface import (
    PRIORITIES,
    Again,
    Job,
    JobError,
    QueueStats,
    RefusedJobError,
    Runner,
)
from service.infra.queues.rabbitmq.consumer import Consumer, Held
from service.infra.queues.rabbitmq.link import Link, faults
from service.infra.queues.rabbitmq.publisher import Outgoing, Publisher
from service.infra.queues.rabbitmq.topology import LEVELS, QueueType, Topology


class RabbitQueue:
    """A `JobQueue` with durable queues: what it has taken survives a crash of the broker.

    Args:
        name: of the queue; its part before `:jobs` is the prefix of everything in the broker.
        prefetch: messages of one work queue that a worker holds, at most 100; None: its concurrency.
        heartbeat: seconds. A worker that hangs with its connection open loses its jobs to others after two.
        timeout: seconds until a broker that does not answer counts as one that is not there.
        max_bytes: of a message; larger ones are refused before they are sent.
    """

    system = "rabbitmq"

    def __init__(
        self,
        url: SecretStr,
        *,
        name: str,
        type: QueueType = "classic",  # noqa: A002 - the broker's own word
        prefetch: int | None = None,
        heartbeat: int = 10,
        timeout: float = 10.0,
        max_bytes: int = 16_777_216,
    ) -> None:
        self.name = name
        self.topology = Topology(name.removesuffix(":jobs").replace(":", "."), type)
        self._prefetch = prefetch
        self._timeout = timeout
        # The broker stops reading from connections that publish when it runs out of memory or disk: with one
        # of their own, workers go on and make room.
        self._publishing, self._consuming = (
            Link(url, self.topology, name=f"{name} {use}", heartbeat=heartbeat, timeout=timeout)
            for use in ("publisher", "consumer")
        )
        self._publisher = Publisher(self._publishing, timeout, max_bytes)
        self._consumer: Consumer | None = None
        self._paused = False
        self._stopping = False
        self._looking = asyncio.Lock()
        self._look: AbstractChannel | None = None

    async def publish(self, jobs: Sequence[Job]) -> list[JobError | None]:
        answers: list[JobError | None] = [None] * len(jobs)
        now = datetime.now(UTC)
        outgoing: dict[int, Outgoing] = {}
        for index, job in enumerate(jobs):
            if job.domain in DOMAINS:
                outgoing[index] = self._outgoing(job, (job.due_at - now).total_seconds())
            else:
                # The ladder would take it, and have nowhere to send it in the end.
                answers[index] = RefusedJobError(f"no queue takes {job.name}")
        for index, answer in zip(outgoing, await self._publisher.publish([*outgoing.values()]), strict=True):
            answers[index] = answer
        return answers

    async def consume(self, run: Runner, *, concurrency: int) -> None:
        if self._stopping:
            return
        self._consumer = Consumer(
            self._consuming,
            self.topology,
            self._put_back,
            run,
            concurrency,
            self._prefetch or min(concurrency, 100),
            self._timeout,
        )
        self._consumer.pause(self._paused)
        await self._consumer.consume()

    async def pause(self) -> None:
        self._paused = True
        if self._consumer is not None:
            self._consumer.pause(True)

    async def resume(self) -> None:
        self._paused = False
        if self._consumer is not None:
            self._consumer.pause(False)

    async def stop(self, grace: float) -> None:
        self._stopping = True
        if self._consumer is not None:
            await self._consumer.stop(grace)

    async def stats(self) -> QueueStats:
        """What waits in the broker, and what this process has; what other workers have is not seen.

        The protocol tells how many messages of a queue are ready; those out with a worker only the
        management plugin knows, which is not asked for.
        """
        async with self._looking:
            waiting = [await self._count(queue.name) for queue in self.topology.work]
            delayed = [await self._count(queue.name) for queue in self.topology.rungs]
        here = self._consumer.held if self._consumer is not None else 0
        return QueueStats(sum(waiting) + here, sum(delayed))

    async def ping(self) -> None:
        async with self._looking:
            await self._count(self.topology.dead.name)

    async def close(self) -> None:
        await self._publishing.close()
        await self._consuming.close()

    async def _put_back(self, held: Held, again: Again) -> JobError | None:
        priority = PRIORITIES[::-1][min(held.level, LEVELS["critical"])]
        message = Outgoing(
            self.topology.route(priority, held.queue.domain, again.delay),
            held.job,
            again.body,
            LEVELS[priority],
            held.message.header.properties.message_type or "",
            _due(again.delay),
        )
        return (await self._publisher.publish([message]))[0]

    def _outgoing(self, job: Job, delay: float) -> Outgoing:
        priority = job.options.priority
        route = self.topology.route(priority, job.name, delay)
        return Outgoing(route, str(job.id), job.encode(), LEVELS[priority], job.name, _due(delay))

    async def _count(self, queue: str) -> int:
        """Messages of a queue that are ready."""
        with faults():
            async with asyncio.timeout(self._timeout):
                connection = await self._publishing.connection()
                if self._look is None or self._look.is_closed:
                    self._look = await connection.channel(publisher_confirms=False)
                raw = await self._look.get_underlay_channel()
                return (await raw.queue_declare(queue, passive=True)).message_count or 0


def _due(delay: float) -> int | None:
    return int((time.time() + delay) * 1000) if delay > 0 else None
