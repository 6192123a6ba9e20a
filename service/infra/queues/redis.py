"""The `redis` engine: arq's client and its shape of a job, beside a worker of our own.

What of arq stands: its client, through which everything goes; a job's key, `arq:job:<id>`, which holds our
envelope and nothing else; and the queue's sorted set of IDs by due time. What arq's own `enqueue_job` puts
there with this client is run like any other job.

What stands beside it, because arq (0.28) is in the way:

- its `enqueue_job` takes two round trips and one job at a time, and a score of milliseconds keeps neither the
  order of a batch nor an urgency: a batch is one script, and jobs that are due move to a second sorted set;
- its worker looks at the queue every `poll_delay`, taking each job with a transaction of its own (200 jobs a
  second as it comes): here one script takes as many jobs as there is room for, and an idle worker is woken;
- its `arq:in-progress:<id>` lasts for the longest timeout, so that a killed worker's jobs wait that long, and
  nobody can be told whose job it was: here leases with a token, renewed while the job runs, taken back by
  whichever worker looks next;
- it cancels running jobs on SIGTERM and drops what timed out: here a stop lets jobs end or hands them back.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from arq.connections import ArqRedis

from service.errors import UnavailableError
from service.infra.queues.interface import PRIORITIES, Job, JobError, QueueStats, RefusedJobError, Runner
from service.infra.queues.redis_consumer import FAULTS, RedisConsumer
from service.infra.queues.redis_scripts import Entry, QueueScripts
from service.infra.redis import RedisClient
from service.infra.redis.client import Pool

_NEVER_EXPIRES_MS = 10 * 365 * 86_400_000


def _serialize(message: dict[str, Any]) -> bytes:
    """arq's record of a job, reduced to our envelope."""
    arguments = message["a"]
    body: bytes = arguments[0] if arguments else b""
    return body


class RedisQueue:
    """A `JobQueue` on sorted sets and one key per job. As durable as the server's own persistence.

    `lease` (seconds): a dead worker's jobs are run by another one after this time at the latest, plus `poll`.
    `poll` (seconds): the longest time that an idle worker goes without a look at the queue. What is published
    wakes it at once; this is for the case that the call is lost.
    """

    system = "redis"

    def __init__(
        self, redis: RedisClient, *, name: str, poll: float, lease: float, max_bytes: int = 10 << 20
    ) -> None:
        pool = redis.connection_pool
        if not isinstance(pool, Pool):
            raise TypeError("the client is not from open_redis")
        self.name = name
        self._pool, self._poll, self._lease, self._max_bytes = pool, poll, lease, max_bytes
        self._redis = ArqRedis(
            pool_or_conn=pool,
            job_serializer=_serialize,
            default_queue_name=name,
            expires_extra_ms=_NEVER_EXPIRES_MS,
        )
        self._scripts = QueueScripts(self._redis, name=name, lease=lease)
        self._consumer: RedisConsumer | None = None
        self._paused = self._stopped = False

    @property
    def client(self) -> ArqRedis:
        """The client that everything but an idle worker's wait goes through, for instrumentation."""
        return self._redis

    async def publish(self, jobs: Sequence[Job]) -> list[JobError | None]:
        """See `JobQueue`. A job that is queued stays as it is; one that runs is queued anew at its end."""
        now = datetime.now(UTC)
        outcome: list[JobError | None] = []
        entries: list[Entry] = []
        for job in jobs:
            body = job.encode()
            if len(body) > self._max_bytes:
                outcome.append(RefusedJobError(f"job has {len(body)} bytes, at most {self._max_bytes}"))
                continue
            outcome.append(None)
            delay = (job.due_at - now).total_seconds()
            entries.append(Entry(str(job.id), PRIORITIES.index(job.options.priority), delay, body))
        with _faults():
            await self._scripts.publish(entries)
        return outcome

    async def consume(self, run: Runner, *, concurrency: int) -> None:
        """See `JobQueue`. Cancelled, it leaves the jobs that run to the end of their leases."""
        if self._stopped:
            return
        self._consumer = RedisConsumer(
            self._scripts,
            self._pool,
            run,
            name=self.name,
            concurrency=concurrency,
            lease=self._lease,
            poll=self._poll,
            paused=self._paused,
        )
        try:
            await self._consumer.run()
        finally:
            self._consumer = None

    async def pause(self) -> None:
        self._paused = True
        if self._consumer is not None:
            self._consumer.pause()

    async def resume(self) -> None:
        self._paused = False
        if self._consumer is not None:
            self._consumer.resume()

    async def stop(self, grace: float) -> None:
        """See `JobQueue`. Returns when `consume` is done with its jobs."""
        self._stopped = True
        if self._consumer is not None:
            await self._consumer.stop(grace)

    async def stats(self) -> QueueStats:
        """`waiting` holds those that run. Raises UnavailableError."""
        with _faults():
            waiting, delayed = await self._scripts.stats()
        return QueueStats(waiting, delayed)

    async def ping(self) -> None:
        """One round trip. Raises UnavailableError."""
        with _faults():
            await self._redis.ping()

    async def close(self) -> None:
        """Stop without grace. The pool is closed by whoever opened it."""
        await self.stop(0)


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except FAULTS as error:
        raise UnavailableError("The job queue does not answer") from error
