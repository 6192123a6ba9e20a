"""One side of a run as a process of its own, in the contender's own environment.

`python -m bench.jobs.side versions arq redis` tells what is installed; `... work|enqueue|arrive <order>` does
its part. The order is JSON: the `Order` below.
"""

import asyncio
import json
import sys
import time
from collections.abc import Coroutine
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import uvloop

from bench.jobs.contender import IO_SECONDS, Run, Send, Setup, Work, load
from bench.jobs.ledger import Ledger

BATCH = 100
"""Jobs that are handed over at once when a queue is filled."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a side is to do.

    `ran` and `sent` are ledgers: of the worker's jobs and of the calls that enqueued them. `count` jobs are
    sent; `warm_up` of them beforehand, to have every connection open, and the rest `rate` a second.
    """

    contender: str
    setup: Setup
    work: Work
    count: int
    ran: str
    sent: str
    rate: float = 0.0
    warm_up: int = 0

    def encode(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def decode(cls, text: str) -> "Order":
        fields = json.loads(text)
        return cls(**{**fields, "setup": Setup(**fields["setup"])})


async def work(order: Order) -> None:
    await load(order.contender).work(order.setup, _job(order.work, Ledger(Path(order.ran))))


async def enqueue(order: Order) -> None:
    """Fill the queue as fast as one process can, a batch at a time."""
    sent = Ledger(Path(order.sent))
    async with load(order.contender).client(order.setup) as send:
        for first in range(0, order.count, BATCH):
            await _sent(send, sent, range(first, min(first + BATCH, order.count)))


async def arrive(order: Order) -> None:
    """Enqueue by the clock, one job at a time, whatever became of those before: an open model."""
    ran, sent = Ledger(Path(order.ran)), Ledger(Path(order.sent))
    async with load(order.contender).client(order.setup) as send, asyncio.TaskGroup() as calls:
        for number in range(order.warm_up):
            await _sent(send, sent, (number,))
        while ran.counts()[1] < order.warm_up:  # noqa: ASYNC110 - it is another process that counts
            await asyncio.sleep(0.01)
        start = time.monotonic()
        for number in range(order.warm_up, order.count):
            due = start + (number - order.warm_up) / order.rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            calls.create_task(_sent(send, sent, (number,)))


async def _sent(send: Send, sent: Ledger, numbers: range | tuple[int, ...]) -> None:
    slots = [sent.begin(number) for number in numbers]
    await send(numbers)
    for slot in slots:
        sent.end(slot)


def _job(kind: Work, ledger: Ledger) -> Run:
    async def noop(number: int) -> None:
        ledger.end(ledger.begin(number))

    async def io(number: int) -> None:
        slot = ledger.begin(number)
        await asyncio.sleep(IO_SECONDS)
        ledger.end(slot)

    return io if kind == "io" else noop


def _versions(packages: list[str]) -> dict[str, str | None]:
    known: dict[str, str | None] = {}
    for package in packages:
        try:
            known[package] = version(package)
        except PackageNotFoundError:
            known[package] = None
    return known


def main(command: str, *arguments: str) -> None:
    if command == "versions":
        sys.stdout.write(json.dumps(_versions(list(arguments))))
        return
    sides: dict[str, Any] = {"work": work, "enqueue": enqueue, "arrive": arrive}
    side: Coroutine[Any, Any, None] = sides[command](Order.decode(arguments[0]))
    uvloop.run(side)


if __name__ == "__main__":
    main(*sys.argv[1:])
