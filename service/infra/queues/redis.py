"""The `redis` engine: arq, used for its queue alone.

What arq stores for a job is our envelope and nothing else, under the job's own ID. Retries, timeouts and
results stay out of its hands: one arq function runs every job, and asks for a later try where the runner says
so. arq's guard against running a job twice is made into a lease, renewed while the job runs, so that the jobs
of a killed worker run again after `lease` seconds and not after the longest timeout.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from arq.connections import ArqRedis
from arq.constants import in_progress_key_prefix, job_key_prefix
from arq.worker import Retry, Worker, func
from redis.exceptions import RedisError

from observability import get_logger
from service.errors import UnavailableError
from service.infra.queues.interface import Again, Delivery, Job, JobError, QueueStats, Runner
from service.infra.redis import RedisClient
from service.tasks import end

log = get_logger(__name__)

_RUN = "run"
_NEVER_EXPIRES_MS = 10 * 365 * 86_400_000
_UNBOUNDED_TRIES = 1_000_000_000
_OUTAGE_PAUSE = (0.1, 5.0)


def _serialize(message: dict[str, Any]) -> bytes:
    """arq's record of a job is reduced to our envelope; that of a result, which is not kept, to nothing."""
    arguments = message["a"]
    body: bytes = arguments[0] if arguments else b""
    return body


def _deserialize(body: bytes) -> dict[str, Any]:
    """Whatever lies in Redis reaches the runner: what is malformed becomes a dead letter."""
    return {"t": None, "f": _RUN, "a": (body,), "k": {}, "et": int(time.time() * 1000)}


class _Worker(Worker):
    """arq's worker, except that a queued job without a body is a dead letter too and not only a log line."""

    def __init__(self, run: Runner, **options: Any) -> None:
        super().__init__(**options)
        self._run = run

    async def finish_failed_job(self, job_id: str, result_data: bytes | None) -> None:
        # With our serializer, one function and unbounded tries, nothing but an empty body leads here.
        if await self._run(Delivery(job_id, b"")) is None:
            await super().finish_failed_job(job_id, result_data)


class RedisQueue:
    """A `JobQueue` on a sorted set and one key per job. As durable as the server's own persistence."""

    system = "redis"

    def __init__(self, redis: RedisClient, *, name: str, poll: float, lease: float) -> None:
        self.name = name
        self._redis = ArqRedis(
            pool_or_conn=redis.connection_pool,
            job_serializer=_serialize,
            job_deserializer=_deserialize,
            default_queue_name=name,
            expires_extra_ms=_NEVER_EXPIRES_MS,
        )
        self._poll = poll
        self._lease = lease
        self._worker: Worker | None = None
        self._stopping = asyncio.Event()
        # Two lines per job that repeat what our own job line says.
        logging.getLogger("arq").setLevel(logging.WARNING)

    @property
    def client(self) -> RedisClient:
        """The client that publishing goes through, for instrumentation."""
        return self._redis

    async def publish(self, jobs: Sequence[Job]) -> list[JobError | None]:
        with _faults():
            for job in jobs:
                await self._redis.enqueue_job(
                    _RUN, job.encode(), _job_id=str(job.id), _defer_until=job.due_at
                )
        return [None] * len(jobs)

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def close(self) -> None: ...

    async def stats(self) -> QueueStats:
        with _faults():
            held = await self._redis.zcard(self.name)
            due = await self._redis.zcount(self.name, "-inf", time.time() * 1000)
        return QueueStats(due, held - due)

    async def ping(self) -> None:
        with _faults():
            await self._redis.ping()

    async def consume(self, run: Runner, *, concurrency: int) -> None:
        worker = self._worker = self._new_worker(run, concurrency)
        renewal = asyncio.create_task(self._renew_leases(worker), name="queue-leases")
        pause = _OUTAGE_PAUSE[0]
        try:
            while not self._stopping.is_set():
                started = time.monotonic()
                try:
                    await worker.async_run()
                except asyncio.CancelledError:
                    if not self._stopping.is_set():
                        raise
                except RedisError as error:
                    if time.monotonic() - started > _OUTAGE_PAUSE[1]:
                        pause = _OUTAGE_PAUSE[0]
                    log.warning("queue.unavailable", queue=self.name, reason=str(error), retryIn=pause)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._stopping.wait(), pause)
                    pause = min(pause * 2, _OUTAGE_PAUSE[1])
        finally:
            await end(renewal)

    async def stop(self, grace: float) -> None:
        self._stopping.set()
        worker = self._worker
        if worker is None:
            return
        worker.allow_pick_jobs = False
        # A look at the queue that is under way ends first: cut off, it would leave a lease without a job.
        await asyncio.sleep(self._poll * 2)
        await end(worker.main_task)
        running = {task for task in worker.tasks.values() if not task.done()}
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=grace)
        if late:
            log.warning("queue.jobs_interrupted", queue=self.name, jobs=len(late))
            # arq answers a cancelled job by giving up its lease: another worker has it at once.
            await end(*late)

    def _new_worker(self, run: Runner, concurrency: int) -> Worker:
        async def deliver(ctx: dict[str, Any], body: bytes) -> None:
            again = await run(Delivery(ctx["job_id"], body))
            if again is not None:
                await self._put_back(ctx["job_id"], again)

        worker = _Worker(
            run,
            functions=[
                func(deliver, name=_RUN, timeout=_NEVER_EXPIRES_MS / 1000, max_tries=_UNBOUNDED_TRIES)
            ],
            queue_name=self.name,
            redis_pool=self._redis,
            handle_signals=False,
            max_jobs=concurrency,
            keep_result=0,
            poll_delay=self._poll,
            job_serializer=_serialize,
            job_deserializer=_deserialize,
            log_results=False,
        )
        worker.in_progress_timeout_s = self._lease
        return worker

    async def _put_back(self, job_id: str, again: Again) -> None:
        with suppress(RedisError):
            # If this is lost the job comes back with its old body: one more attempt, nothing less.
            await self._redis.set(job_key_prefix + job_id, again.body, keepttl=True)
        raise Retry(defer=again.delay)

    async def _renew_leases(self, worker: Worker) -> None:
        while True:
            await asyncio.sleep(self._lease / 4)
            jobs = [job_id for job_id, task in worker.tasks.items() if not task.done()]
            if not jobs:
                continue
            try:
                async with self._redis.pipeline(transaction=False) as pipe:
                    for job_id in jobs:
                        pipe.pexpire(in_progress_key_prefix + job_id, int(self._lease * 1000))
                    await pipe.execute()
            except RedisError as error:
                log.warning("queue.lease_not_renewed", queue=self.name, jobs=len(jobs), reason=str(error))


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except (RedisError, OSError) as error:
        raise UnavailableError("The job queue does not answer") from error
