"""The `file` engine: one SQLite file with a write-ahead log, for a machine with neither Redis nor RabbitMQ.

persist-queue, the library of that kind, was looked at: its SQLiteAckQueue has no leases (a second process
that opens it takes what the first one runs), no priorities, no delays and no commit of many.

A job is a row until it has ended. A consumer takes rows under a lease, in one transaction with the
acknowledgement of what it ended before, and renews the lease while they run; a lease that ran out is taken by
anybody. A crash at any point leaves the row, and at worst a lease. Publishing is synced to the disk when it
returns; acknowledgements are not: a power cut (not the death of a process) may bring back the last of them.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from observability import get_logger
from service.errors import UnavailableError
from service.infra.queues import file_jobs
from service.infra.queues.file_consumer import FileConsumer
from service.infra.queues.file_schema import check_file, now_us
from service.infra.queues.file_wake import Bell
from service.infra.queues.file_writer import FileWriter
from service.infra.queues.interface import PRIORITIES, Job, JobError, QueueStats, RefusedJobError, Runner

log = get_logger(__name__)


class FileQueue:
    """A `JobQueue` in one file, for the processes of one machine. The file has mode 600.

    `poll` is the pause between looks at the file of an idle consumer; where a named pipe beside the file
    wakes it, five times that is enough. `lease` is how long a job of a worker that died stays with it. Both in
    seconds. A body over `max_bytes` is refused.

    Raises:
        StartError: the file can never be a queue as things are: a folder, damaged, not ours to write, on a
            file system without locks.
    """

    system = "file"

    def __init__(
        self, path: Path, *, name: str, poll: float, lease: float, max_bytes: int = 10_485_760
    ) -> None:
        self.name = name
        path = path.absolute()
        found = True
        try:
            check_file(path)
        except UnavailableError as error:
            found = False
            # A full disk or a lock passes; the worker then begins where it can.
            log.warning("queue.unavailable", queue=name, path=str(path), reason=str(error.__cause__ or error))
        self._writer = FileWriter(path, create=not found)
        self._bell = Bell(path.with_name(f"{path.name}-bell"))
        self._poll, self._lease, self._max_bytes = poll, lease, max_bytes
        self._consumer: FileConsumer | None = None
        self._paused = False
        self._stopped = False

    async def publish(self, jobs: Sequence[Job]) -> list[JobError | None]:
        answers: list[JobError | None] = []
        rows: list[file_jobs.Row] = []
        now = now_us()
        for job in jobs:
            body = job.encode()
            if len(body) > self._max_bytes:
                answers.append(RefusedJobError(f"{len(body)} bytes are over the limit of {self._max_bytes}"))
                continue
            answers.append(None)
            # What is due already keeps the order in which it came.
            due = max(int(job.due_at.timestamp() * 1e6), now)
            priority = PRIORITIES.index(job.options.priority)
            rows.append({"job_id": str(job.id), "priority": priority, "due": due, "body": body})
        if rows:
            await self._writer.write(functools.partial(file_jobs.insert, rows=rows), durable=True)
            self._bell.ring()
            if self._consumer is not None:
                self._consumer.look()
        return answers

    async def consume(self, run: Runner, *, concurrency: int) -> None:
        if self._stopped:
            return
        consumer = FileConsumer(
            self._writer, self._bell, run, concurrency=concurrency, poll=self._poll, lease=self._lease
        )
        consumer.paused = self._paused
        self._consumer = consumer
        try:
            await consumer.run()
        finally:
            self._consumer = None

    async def pause(self) -> None:
        self._paused = True
        if self._consumer is not None:
            await self._consumer.pause()

    async def resume(self) -> None:
        self._paused = False
        if self._consumer is not None:
            self._consumer.paused = False
            self._consumer.look()

    async def stop(self, grace: float) -> None:
        self._stopped = True
        if self._consumer is not None:
            await self._consumer.stop(grace)

    async def stats(self) -> QueueStats:
        return await self._writer.read(file_jobs.stats)

    async def ping(self) -> None:
        """Takes and releases the file's write lock."""
        await self._writer.write(lambda _: None)

    async def close(self) -> None:
        await self._writer.close()
        self._bell.close()
