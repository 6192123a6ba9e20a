"""SAQ on Redis, with its own defaults but for the concurrency of jobs and of commands."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from saq import Queue, Worker

from bench.jobs.contender import Run, Send, Setup


class Saq:
    """One `Queue`, one `Worker`."""

    @asynccontextmanager
    async def client(self, setup: Setup) -> AsyncIterator[Send]:
        queue = _open(setup)
        await queue.connect()

        async def send(numbers: Sequence[int]) -> None:
            await asyncio.gather(*(queue.enqueue("job", number=number) for number in numbers))

        try:
            yield send
        finally:
            await queue.disconnect()

    async def work(self, setup: Setup, run: Run) -> None:
        async def job(_ctx: dict[str, Any], *, number: int) -> None:
            await run(number)

        queue = _open(setup)
        worker = Worker(queue, functions=[("job", job)], concurrency=setup.concurrency)
        await queue.connect()
        # Its sweep of stuck jobs runs as a worker starts, and takes jobs that were fetched a moment ago for
        # stuck: they run twice. One sweep while nothing has been fetched holds the next off for a minute.
        await queue.sweep()
        await worker.start()


def _open(setup: Setup) -> Any:
    # Its own limit of 20 commands at once held 100 jobs back by a third.
    return Queue.from_url(setup.broker, name=setup.queue, max_concurrent_ops=setup.concurrency)


default = Saq()
