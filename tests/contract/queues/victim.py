"""A worker that starts jobs and ends none: `victim <module:function> <arguments> <concurrency>`.

It prints the ID of each job that it starts, and is there to be killed.
"""

import asyncio
import importlib
import json
import sys

from service.infra.queues.interface import Again, Delivery, JobQueue


async def hold(delivery: Delivery) -> Again | None:
    print(delivery.id, flush=True)
    await asyncio.Event().wait()
    return None


async def main(function: str, arguments: str, concurrency: str) -> None:
    module, name = function.split(":")
    queue: JobQueue = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    await queue.consume(hold, concurrency=int(concurrency))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
