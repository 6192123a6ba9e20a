"""What the tests of every queue engine share: brokers, envelopes, and consumers that keep a record."""

import asyncio
import json
import os
import sys
import uuid
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from service.infra.queues.interface import Again, Delivery, Job, JobOptions, JobQueue, Priority
from service.tasks import end

ROOT = Path(__file__).parents[3]
LEASE = 2.0
"""Seconds after which another worker has the jobs of a dead one, unless a test opens its queue otherwise."""
PATIENCE = 30.0


class Broker(Protocol):
    """One queue on one broker, new and empty for every test. What it opened it closes at its end."""

    engine: str

    def open(self, *, lease_seconds: float = LEASE, **changes: Any) -> JobQueue:
        """The queue as one more process sees it. An engine takes no notice of what it has no use for."""

    def away(self) -> JobQueue:
        """A queue whose broker is not there."""

    def recipe(self) -> tuple[str, dict[str, Any]]:
        """`module:function` and the arguments, fit for JSON, that open the queue in another process."""

    async def put_raw(self, body: bytes) -> None:
        """Put a body into the queue as something else than `publish` could."""

    async def close(self) -> None: ...


def job(*, priority: Priority = "normal", delay: float = 0.0, **changes: Any) -> Job:
    """An envelope, due `delay` seconds from now."""
    return Job(
        **{
            "id": uuid.uuid4(),
            "name": "maintenance.contract.v1",
            "payload": {},
            "options": JobOptions(priority=priority),
            "due_at": datetime.now(UTC) + timedelta(seconds=delay),
            **changes,
        }
    )


def numbered(count: int, **changes: Any) -> list[Job]:
    """Envelopes whose payloads say which they are."""
    return [job(payload={"number": number}, **changes) for number in range(count)]


def ids(jobs: Sequence[Job]) -> list[str]:
    return [str(one.id) for one in jobs]


async def published(queue: JobQueue, *jobs: Job) -> None:
    """Publish, and see that each was taken."""
    assert await queue.publish(jobs) == [None] * len(jobs)


async def eventually(
    look: Callable[[], Awaitable[object] | object], within: float = PATIENCE, every: float = 0.02
) -> None:
    """Returns once `look` finds something, and raises TimeoutError if it never does."""
    async with asyncio.timeout(within):
        while True:
            found = look()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(every)


async def drained(queue: JobQueue) -> None:
    """Returns once the broker holds no job of any kind."""

    async def empty() -> bool:
        stats = await queue.stats()
        return (stats.waiting, stats.delayed) == (0, 0)

    await eventually(empty)


Answer = Callable[[Delivery], Again | None]


class Working:
    """`consume` inside the block, with a runner that keeps a record; stopped at the block's end.

    `gated` runs wait until `gate` is set. `answer` says what becomes of a job, and may raise.
    """

    def __init__(
        self,
        queue: JobQueue,
        *,
        concurrency: int = 1,
        gated: bool = False,
        answer: Answer | None = None,
        seconds: float = 0.0,
    ) -> None:
        self.queue = queue
        self.started: list[Delivery] = []
        self.finished: list[Delivery] = []
        self.interrupted: list[Delivery] = []
        self.running = 0
        self.most = 0
        self.gate = asyncio.Event()
        if not gated:
            self.gate.set()
        self._concurrency, self._answer, self._seconds = concurrency, answer, seconds

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(
            self.queue.consume(self._run, concurrency=self._concurrency), name="consume"
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.task.done() or error is not None:
            await self.kill()
        else:
            await self.stop(5.0)
        if error is None and not self.task.cancelled():
            self.task.result()

    async def stop(self, grace: float) -> None:
        """Stop, and see that `consume` returns."""
        async with asyncio.timeout(grace + PATIENCE):
            await self.queue.stop(grace)
            await asyncio.wait([self.task])

    async def kill(self) -> None:
        """The end of a worker that has no time for goodbyes."""
        await end(self.task)

    async def _run(self, delivery: Delivery) -> Again | None:
        self.started.append(delivery)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self._seconds:
                await asyncio.sleep(self._seconds)
            await self.gate.wait()
            answer = self._answer(delivery) if self._answer else None
        except asyncio.CancelledError:
            self.interrupted.append(delivery)
            raise
        finally:
            self.running -= 1
        self.finished.append(delivery)
        return answer

    @property
    def order(self) -> list[str]:
        """The IDs of what was started, first to last."""
        return [delivery.id for delivery in self.started]

    @property
    def times(self) -> Counter[str]:
        """How often each ID was started."""
        return Counter(self.order)

    async def ran(self, count: int, within: float = PATIENCE) -> None:
        """Returns once so many runs have come to their end."""
        await eventually(lambda: len(self.finished) >= count, within)

    async def has_started(self, count: int, within: float = PATIENCE) -> None:
        await eventually(lambda: len(self.started) >= count, within)


@asynccontextmanager
async def victim(broker: Broker, *, concurrency: int) -> AsyncIterator[tuple[Process, list[str]]]:
    """A worker process that starts jobs and ends none, and the IDs of those it started so far."""
    function, arguments = broker.recipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contract.queues.victim",
        function, json.dumps(arguments), str(concurrency),
        stdout=PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    started: list[str] = []

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            started.append(line.decode().strip())  # noqa: PERF401 - seen while it grows

    reading = asyncio.create_task(read())
    try:
        yield process, started
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading
