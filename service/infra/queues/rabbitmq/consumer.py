"""Consuming: one consumer for each work queue, and one order of urgency over all that they deliver."""

import asyncio
import hashlib
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from aio_pika.abc import AbstractChannel as Channel
from aiormq.abc import AbstractChannel, DeliveredMessage

from observability import get_logger
from service.errors import UnavailableError
from service.infra.queues.interface import Again, Delivery, JobError, Runner
from service.infra.queues.rabbitmq.link import Link, faults
from service.infra.queues.rabbitmq.topology import Queue, Topology
from service.tasks import end

log = get_logger(__name__)

EARLY_SECONDS = 1.0
OUTAGE_PAUSE = 1.0
NEXT_SECONDS = 0.05
"""How long the place of a job that ended is kept for the next of its queue, which is on its way, while all
that is here is less urgent. Without it a busy queue of urgent jobs would share its places with the rest."""

PutBack = Callable[["Held", Again], Awaitable[JobError | None]]
"""Publishes the job anew. Raises UnavailableError."""


@dataclass(frozen=True, slots=True)
class Held:
    """A message that this process has and has not acknowledged."""

    message: DeliveredMessage
    queue: Queue
    channel: AbstractChannel

    @property
    def level(self) -> int:
        return self.message.header.properties.priority or 0

    @property
    def job(self) -> str:
        """The job's ID; of a message that did not come from us, one that stays the same."""
        found = self.message.header.properties.correlation_id
        return found or hashlib.sha256(self.message.body).hexdigest()[:32]

    @property
    def early(self) -> float:
        """Seconds until it is due, where the wait was longer than the ladder."""
        due = (self.message.header.properties.headers or {}).get("due")
        return due / 1000 - time.time() if isinstance(due, int) else 0.0


@dataclass
class Consumer:
    """Runs deliveries, at most `concurrency` at a time, the most urgent of those held first.

    The broker hands over up to `prefetch` messages of each queue. What is held and does not run yet goes back
    on a pause and a stop, so that another worker has it.
    """

    link: Link
    topology: Topology
    put_back: PutBack
    run: Runner
    concurrency: int
    prefetch: int
    timeout: float
    _waiting: list[tuple[int, int, Held]] = field(default_factory=list)
    _running: dict[asyncio.Task[None], Held] = field(default_factory=dict)
    _arrivals: "itertools.count[int]" = field(default_factory=itertools.count)
    _channel: Channel | None = None
    _kept: list[tuple[float, int, Queue]] = field(default_factory=list)
    _tags: list[str] = field(default_factory=list)
    _open: bool = False
    _paused: bool = False
    _stopping: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def held(self) -> int:
        """Messages that this process has and has not acknowledged."""
        return len(self._waiting) + len(self._running)

    async def consume(self) -> None:
        """Until `stop`. Rides out faults of the broker."""
        try:
            while not self._stopping:
                self._changed.clear()
                try:
                    await (self._unsubscribe() if self._paused else self._subscribe())
                except UnavailableError:
                    self._lose()
                    await self._change(max(self.link.retry_in, 0.05))
                else:
                    await self._change()
            with suppress(UnavailableError):
                await self._unsubscribe()
            if self._running:
                await asyncio.wait(list(self._running))
        finally:
            await end(*self._running)
            self._lose()

    def pause(self, paused: bool) -> None:
        """Fetch no more, or again."""
        self._paused = paused
        self._open = self._open and not paused
        self._changed.set()

    async def stop(self, grace: float) -> None:
        """Fetch no more; wait for what runs, then hand it back."""
        self._stopping = True
        self._open = False
        self._changed.set()
        if not self._running:
            return
        _, late = await asyncio.wait(list(self._running), timeout=grace)
        if late:
            log.warning("queue.jobs_interrupted", queue=self.topology.prefix, jobs=len(late))
            await end(*late)

    async def _change(self, seconds: float | None = None) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    async def _subscribe(self) -> None:
        """Have a consumer on every work queue, unless there is."""
        if self._tags and self._channel is not None and not self._channel.is_closed:
            self._go_on()
            return
        with faults():
            async with asyncio.timeout(self.timeout * 4):
                # After a pause it is the channel of before, on which running jobs are acknowledged.
                if self._channel is None or self._channel.is_closed:
                    self._lose()
                    self._channel = await self._connect()
                raw = await self._channel.get_underlay_channel()
                for queue in self.topology.work:
                    done = await raw.basic_consume(queue.name, partial(self._arrived, raw, queue))
                    self._tags.append(str(done.consumer_tag))
                # Each queue has sent its first messages before it answers this, and they are all here before
                # the channel answers the last: the first job to run is the most urgent of them.
                for queue in self.topology.work:
                    await raw.queue_declare(queue.name, passive=True)
                await raw.basic_qos(prefetch_count=self.prefetch)
        log.info("queue.consuming", queue=self.topology.prefix, consumers=len(self._tags))
        self._go_on()

    def _go_on(self) -> None:
        self._open = not (self._paused or self._stopping)
        self._dispatch()

    async def _connect(self) -> Channel:
        connection = await self.link.connection()
        channel = await connection.channel(publisher_confirms=False)
        raw = await channel.get_underlay_channel()
        channel.close_callbacks.add(lambda *_: self._changed.set())
        raw.on_consumer_cancel_callbacks.add(self._evicted)
        await raw.basic_qos(prefetch_count=self.prefetch)
        return channel

    async def _unsubscribe(self) -> None:
        """Cancel the consumers, and hand back what does not run yet. The channel stays, to acknowledge on."""
        self._open = False
        tags, self._tags = self._tags, []
        if self._channel is not None and not self._channel.is_closed:
            with faults():
                async with asyncio.timeout(self.timeout):
                    raw = await self._channel.get_underlay_channel()
                    for tag in tags:
                        await raw.basic_cancel(tag)
                    for _, _, held in self._waiting:
                        await raw.basic_nack(_tag(held), requeue=True)
        self._waiting.clear()

    def _lose(self) -> None:
        """Forget a channel; the broker gives what was delivered on it to somebody else."""
        self._open = False
        self._tags.clear()
        self._waiting.clear()
        channel, self._channel = self._channel, None
        if channel is not None and not channel.is_closed:
            self.link.drop()

    async def _evicted(self, _: object) -> None:
        """The broker ended a consumer, because its queue was deleted: it is declared on a new connection."""
        log.warning("queue.consumer_cancelled", queue=self.topology.prefix)
        self.link.drop()

    async def _arrived(self, channel: AbstractChannel, queue: Queue, message: DeliveredMessage) -> None:
        if self._channel is None or channel.is_closed:
            return
        held = Held(message, queue, channel)
        heapq.heappush(self._waiting, (-held.level, next(self._arrivals), held))
        self._dispatch()

    def _dispatch(self) -> None:
        now = asyncio.get_running_loop().time()
        self._kept = [kept for kept in self._kept if kept[0] > now]
        while self._open and self._waiting:
            held = self._waiting[0][2]
            others = sum(level > held.level and queue is not held.queue for _, level, queue in self._kept)
            if len(self._running) + others >= self.concurrency:
                return
            heapq.heappop(self._waiting)
            mine = next((kept for kept in self._kept if kept[2] is held.queue), None)
            if mine is not None:
                self._kept.remove(mine)
            task = asyncio.create_task(self._handle(held), name=f"job-{held.job}")
            self._running[task] = held
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        held = self._running.pop(task)
        if self._open and self._waiting and self._waiting[0][2].level < held.level:
            loop = asyncio.get_running_loop()
            self._kept.append((loop.time() + NEXT_SECONDS, held.level, held.queue))
            loop.call_later(NEXT_SECONDS + 0.001, self._dispatch)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("queue.delivery_failed", queue=self.topology.prefix, reason=repr(error))
        self._dispatch()

    async def _handle(self, held: Held) -> None:
        # The old message is acknowledged only once the broker has the new one: at worst there are two.
        try:
            early = held.early
            again: Again | None
            if early > EARLY_SECONDS:
                again = Again(held.message.body, early)
            else:
                again = await self.run(Delivery(held.job, held.message.body, bool(held.message.redelivered)))
            answer = await self.put_back(held, again) if again is not None else None
        except BaseException as error:
            if isinstance(error, Exception):
                # An outage, or a defect of the runner: the job comes back at once, and may meet it again.
                await self._rest()
            with suppress(UnavailableError), faults():
                await held.channel.basic_nack(_tag(held), requeue=True)
            if not isinstance(error, UnavailableError):
                raise
            log.warning("queue.job_not_put_back", queue=held.queue.name, jobId=held.job)
            return
        with suppress(UnavailableError), faults():
            if answer is None:
                await held.channel.basic_ack(_tag(held))
            else:
                log.error("queue.job_refused", queue=held.queue.name, jobId=held.job, reason=str(answer))
                await held.channel.basic_nack(_tag(held), requeue=False)

    async def _rest(self) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(OUTAGE_PAUSE)


def _tag(held: Held) -> int:
    tag = held.message.delivery_tag
    if tag is None:
        raise ValueError("a delivered message has a delivery tag")
    return tag
