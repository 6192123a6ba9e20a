"""Plain arq: a pool that enqueues, a `Worker`, and nothing of this project's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

from arq.connections import RedisSettings, create_pool
from arq.worker import Worker, func

from bench.jobs.contender import Run, Send, Setup


class Arq:
    """`options` are the worker's; what is not among them is as arq has it."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    @asynccontextmanager
    async def client(self, setup: Setup) -> AsyncIterator[Send]:
        pool = await create_pool(RedisSettings.from_dsn(setup.broker), default_queue_name=setup.queue)

        async def send(numbers: Sequence[int]) -> None:
            await asyncio.gather(*(pool.enqueue_job("job", number) for number in numbers))

        try:
            yield send
        finally:
            await pool.aclose()

    async def work(self, setup: Setup, run: Run) -> None:
        async def job(_ctx: dict[Any, Any], number: int) -> None:
            await run(number)

        worker = Worker(
            functions=[func(cast("Any", job), name="job")],
            queue_name=setup.queue,
            redis_settings=RedisSettings.from_dsn(setup.broker),
            handle_signals=False,
            **self._options,
        )
        await worker.async_run()


default = Arq()
tuned = Arq(max_jobs=100, poll_delay=0.05)
