"""taskiq on Redis: a list, and a stream with acknowledgements. No results are kept, which is its default."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from taskiq import AsyncBroker
from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from bench.jobs.contender import Run, Send, Setup


class Taskiq:
    """One task on one broker."""

    def __init__(self, broker: Callable[..., AsyncBroker]) -> None:
        self._broker = broker

    @asynccontextmanager
    async def client(self, setup: Setup) -> AsyncIterator[Send]:
        broker = self._broker(url=setup.broker, queue_name=setup.queue)
        task: Any = broker.register_task(_elsewhere, task_name="job")
        await broker.startup()

        async def send(numbers: Sequence[int]) -> None:
            await asyncio.gather(*(task.kiq(number) for number in numbers))

        try:
            yield send
        finally:
            await broker.shutdown()

    async def work(self, setup: Setup, run: Run) -> None:
        async def job(number: int) -> None:
            await run(number)

        broker = self._broker(url=setup.broker, queue_name=setup.queue)
        broker.is_worker_process = True
        broker.register_task(job, task_name="job")
        await run_receiver_task(broker, max_async_tasks=setup.concurrency, run_startup=True)


async def _elsewhere(number: int) -> None:
    """The client knows the task by its name and arguments alone."""


redis_list = Taskiq(ListQueueBroker)
redis_stream = Taskiq(RedisStreamBroker)
