"""Publishing: many messages on their way at a time, each one answered for by the broker."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import aiormq
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import ChannelPreconditionFailed, PublishError
from pamqp.commands import Basic

from service.errors import UnavailableError
from service.infra.queues.interface import JobError, RefusedJobError
from service.infra.queues.rabbitmq.link import Link, faults
from service.infra.queues.rabbitmq.topology import Route

_UNKNOWN = "The job queue has not said whether it has the jobs"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish. `due` is in milliseconds since 1970, for what has to wait."""

    route: Route
    job: str
    body: bytes
    level: int
    name: str = ""
    due: int | None = None


@dataclass
class Publisher:
    """Publishes with confirms, mandatory: what no queue takes comes back instead of being dropped."""

    link: Link
    timeout: float
    max_bytes: int
    _channel: AbstractChannel | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def publish(self, messages: Sequence[Outgoing]) -> list[JobError | None]:
        """The answer for each message, in their order. Raises UnavailableError: some have none."""
        with faults():
            async with asyncio.timeout(self.timeout * 2):
                channel = await self._open()
        answers = await self._send(channel, messages)
        if any(isinstance(answer, ChannelPreconditionFailed) for answer in answers):
            # One message was larger than the broker takes, for which it closed the channel on all of them.
            answers = [await self._alone(m, a) for m, a in zip(messages, answers, strict=True)]
        fault = next((a for a in answers if a is not None and not isinstance(a, JobError)), None)
        if fault is not None:
            raise UnavailableError(_UNKNOWN) from fault
        return [answer for answer in answers if answer is None or isinstance(answer, JobError)]

    async def _alone(self, message: Outgoing, answer: BaseException | None) -> BaseException | None:
        if answer is None or isinstance(answer, JobError):
            return answer
        with faults():
            async with asyncio.timeout(self.timeout * 2):
                channel = await self._open()
        answer = (await self._send(channel, [message]))[0]
        if isinstance(answer, ChannelPreconditionFailed):
            return RefusedJobError(f"the broker does not take this message: {answer}")
        return answer

    async def _send(
        self, channel: aiormq.Channel, messages: Sequence[Outgoing]
    ) -> list[BaseException | None]:
        """None or what is wrong, for each message. They are written in their order."""
        tasks = [asyncio.create_task(self._one(channel, message)) for message in messages]
        try:
            _, late = await asyncio.wait(tasks, timeout=self.timeout) if tasks else (set(), set())
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            raise
        if late:
            # Answers that came now could not be told apart from those of a second attempt.
            self._channel = None
            self.link.drop()
            for task in late:
                task.cancel()
            await asyncio.wait(late)
        return [_outcome(task) for task in tasks]

    async def _one(self, channel: aiormq.Channel, message: Outgoing) -> JobError | None:
        if len(message.body) > self.max_bytes:
            return RefusedJobError(
                f"a message of {len(message.body)} bytes is over"
                f" QUEUE_RABBITMQ_MAX_MESSAGE_BYTES={self.max_bytes}"
            )
        # The message ID is left to the client, which tells returned messages by it: the same job may be on
        # its way twice.
        properties = Basic.Properties(
            content_type="application/json",
            delivery_mode=2,
            priority=message.level,
            correlation_id=message.job,
            message_type=message.name or None,
            headers={"due": message.due} if message.due is not None else None,
        )
        try:
            await channel.basic_publish(
                message.body,
                exchange=message.route.exchange,
                routing_key=message.route.key,
                properties=properties,
                mandatory=True,
                wait=False,
            )
        except PublishError:
            return RefusedJobError(f"no queue takes {message.route.key}")
        return None

    async def _open(self) -> aiormq.Channel:
        async with self._opening:
            connection = await self.link.connection()
            if self._channel is None or self._channel.is_closed:
                self._channel = await connection.channel(on_return_raises=True)
            return cast("aiormq.Channel", await self._channel.get_underlay_channel())


def _outcome(task: asyncio.Task[JobError | None]) -> BaseException | None:
    if task.cancelled():
        return TimeoutError("no answer in time")
    return task.exception() or task.result()
