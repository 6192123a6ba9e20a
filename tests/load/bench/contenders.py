"""A queue on a Redis list that works, and the same with one fault each: what the harness has to notice."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from bench.jobs.contender import Run, Send, Setup

AT = 7  # the job that meets the fault


class ListQueue:
    """One job after the other, as its `fault` has it."""

    def __init__(self, fault: str = "") -> None:
        self._fault = fault

    @asynccontextmanager
    async def client(self, setup: Setup) -> AsyncIterator[Send]:
        async with Redis.from_url(setup.broker) as redis:

            async def send(numbers: Sequence[int]) -> None:
                if self._fault == "refuses":
                    raise ConnectionError("the broker does not take it")
                kept = [n for n in numbers if n != AT or self._fault != "forgets"]
                if kept:
                    await redis.rpush(setup.queue, *kept)

            yield send

    async def work(self, setup: Setup, run: Run) -> None:
        # The others stand for jobs that run at the same time and outlive the fault.
        async with Redis.from_url(setup.broker) as redis, asyncio.TaskGroup() as others:
            while True:
                taken = await redis.blpop([setup.queue], 0)
                number = int(taken[1])
                if number == AT:
                    if self._fault == "loses":
                        continue
                    if self._fault == "dies":
                        os._exit(3)
                    if self._fault == "doubles":
                        await run(number)
                    if self._fault == "doubles late":
                        others.create_task(_later(run, number))
                    if self._fault == "invents":
                        await run(1_000_000)
                    if self._fault == "cuts off":
                        others.create_task(_cut_off(run, number))
                        continue
                await run(number)


async def _later(run: Run, number: int) -> None:
    await asyncio.sleep(0.3)
    await run(number)


async def _cut_off(run: Run, number: int) -> None:
    """With the kind of job that waits, this begins it and does not let it end."""
    try:
        async with asyncio.timeout(0):
            await run(number)
    except TimeoutError:
        return


honest = ListQueue()
forgets = ListQueue("forgets")
loses = ListQueue("loses")
dies = ListQueue("dies")
doubles = ListQueue("doubles")
doubles_late = ListQueue("doubles late")
invents = ListQueue("invents")
cuts_off = ListQueue("cuts off")
refuses = ListQueue("refuses")
