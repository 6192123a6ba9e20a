"""A worker that is there to be killed: `victim <module:function> <arguments> <concurrency> <seconds>`.

It prints the ID of each job that it starts and holds on to it for ever. With a number of seconds it takes so
long for each, and prints the ID when it ends one.
"""

import asyncio
import importlib
import json
import sys

from service.infra.queues.interface import Again, Delivery, JobQueue


async def main(function: str, arguments: str, concurrency: str, seconds: str) -> None:
    async def run(delivery: Delivery) -> Again | None:
        if seconds:
            await asyncio.sleep(float(seconds))
        print(delivery.id, flush=True)
        if not seconds:
            await asyncio.Event().wait()
        return None

    module, name = function.split(":")
    queue: JobQueue = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    await queue.consume(run, concurrency=int(concurrency))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
