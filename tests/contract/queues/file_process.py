"""Processes on one queue file that are there to be killed: `file_process <path> <lease> <record>`.

It imports everything once and then forks: a line `publish`, `work` or `fill` on its input starts such a
process and answers with its number, `kill <number>` ends one by SIGKILL and answers when it is gone. The end
of its input ends all. What the processes did stands in the record, one line for each thing, written at once:

    ready <pid>                           it has opened the file
    published <job ID> <attempts>         after `publish` has returned; it ends at its last attempt
    ran <job ID> <attempt> <redelivered> <pid>
    refused <why>                         `fill`: the file may grow no more
"""

import asyncio
import os
import random
import resource
import signal
import sys

from service.errors import UnavailableError
from service.infra.queues.file import FileQueue
from service.infra.queues.interface import Again, Delivery, Job
from tests.contract.queues.file_broker import open_queue
from tests.contract.queues.harness import numbered

CONCURRENCY = 8
FULL_BYTES = 300_000


class Process:
    def __init__(self, path: str, lease: float, record: int) -> None:
        self._path, self._lease, self._record = path, lease, record

    def note(self, *words: object) -> None:
        os.write(self._record, (" ".join(map(str, words)) + "\n").encode())

    def open(self) -> FileQueue:
        queue = open_queue(self._path, self._lease)
        self.note("ready", os.getpid())
        return queue

    async def publish(self) -> None:
        queue = self.open()
        while True:
            await self.put(queue, random.randint(1, 20))
            await asyncio.sleep(random.uniform(0, 0.01))

    async def put(self, queue: FileQueue, count: int) -> None:
        jobs = numbered(count)
        assert not any(await queue.publish(jobs))
        for job in jobs:
            self.note("published", job.id, attempts(job))

    async def work(self) -> None:
        await self.open().consume(self.run, concurrency=CONCURRENCY)

    async def run(self, delivery: Delivery) -> Again | None:
        await asyncio.sleep(random.uniform(0, 0.02))
        job = Job.decode(delivery.body)
        self.note("ran", job.id, job.attempt, int(delivery.redelivered), os.getpid())
        if job.attempt < attempts(job):
            return Again(job.model_copy(update={"attempt": 2}).encode(), 0.01)
        return None

    async def fill(self) -> None:
        """Publish until no file may grow further, and go on when they may again."""
        queue = self.open()
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (FULL_BYTES, hard))
        try:
            while True:
                await self.put(queue, 20)
        except UnavailableError as error:
            self.note("refused", error.__cause__)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        await self.put(queue, 20)
        await queue.close()
        self.note("closed", os.getpid())


def attempts(job: Job) -> int:
    """Every fourth job fails once."""
    return 2 if job.payload["number"] % 4 == 0 else 1


def main(path: str, lease: str, record: str) -> None:
    process = Process(path, float(lease), os.open(record, os.O_CREAT | os.O_APPEND | os.O_WRONLY))
    children: set[int] = set()
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "kill":
            child = int(arguments[0])
            end(child)
            children.discard(child)
            print(child, flush=True)
            continue
        child = os.fork()
        if child == 0:
            try:
                asyncio.run(getattr(process, command)())
            finally:
                os._exit(1)
        children.add(child)
        print(child, flush=True)
    for child in children:
        end(child)


def end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:4])
