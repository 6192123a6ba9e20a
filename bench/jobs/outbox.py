"""This project's engines with what the service puts around them: the job is a row in PostgreSQL from its
enqueueing to its end.

The worker is put together as `service.worker` does it, of the same parts: relay, runner, effects, failures,
presence, pauses and upkeep in one process. Telemetry is off, as the peers have none.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import asyncpg
from pydantic import BaseModel, SecretStr

from bench.jobs import ours
from bench.jobs.contender import Run, Send, Setup
from observability import JobTelemetry, Telemetry, TelemetryConfig
from service.db.jobs.effects import Effects, Handler, JobHandler, RepeatableHandler
from service.db.jobs.failures import Failures
from service.db.jobs.keeping import Keeping
from service.db.jobs.outbox import Outbox
from service.db.jobs.pausing import Pausing
from service.db.jobs.presence import Presence
from service.db.jobs.relay import Relay, RelayMetrics
from service.db.migrate import upgrade
from service.db.session import Database, UnitOfWork
from service.infra.queues.interface import Job, JobKind, JobQueue
from service.infra.queues.runner import JobRunner
from service.settings import DatabaseSettings, OutboxSettings
from service.tasks import first_of

SAMPLE_SECONDS = 5.0  # the service's own default
_COUNT_SECONDS = 0.05


class Number(BaseModel):
    """The payload."""

    number: int


KIND = JobKind(ours.NAME, Number)


class Outboxed:
    """One engine behind the outbox.

    `once`: each job's end is a transaction of its own, which an effect in the database shares. Without it
    many ends share one, after the effects of their jobs.
    """

    def __init__(self, opened: Callable[[Setup], JobQueue], *, once: bool = False) -> None:
        self._opened = opened
        self._once = once

    @asynccontextmanager
    async def client(self, setup: Setup) -> AsyncIterator[Send]:
        telemetry = _telemetry()
        database = _database(setup, telemetry)
        outbox = Outbox(JobTelemetry(telemetry, system="bench", queue=setup.queue), source="bench")

        async def send(numbers: Sequence[int]) -> None:
            async with database.unit() as unit:
                await outbox.add_bulk(unit, KIND, [Number(number=number) for number in numbers])

        try:
            yield send
        finally:
            await database.close()

    async def work(self, setup: Setup, run: Run) -> None:
        telemetry = _telemetry()
        metrics = telemetry.metrics
        database = _database(setup, telemetry)
        queue = self._opened(setup)
        jobs = JobTelemetry(telemetry, system=queue.system, queue=queue.name)
        presence = Presence(
            database, name=str(os.getpid()), concurrency=setup.concurrency, seconds=SAMPLE_SECONDS
        )
        pausing = Pausing(database, queue, metrics, seconds=SAMPLE_SECONDS)
        duplicates = metrics.counter("jobs_duplicate", "Deliveries of ended jobs.", ("job_name",))
        effects = Effects(database, [self._handler(run)], duplicates)
        runner = JobRunner(presence.performing(effects.perform), Failures(database), jobs)
        settings = OutboxSettings()
        relay = Relay(
            settings, database, queue, jobs, RelayMetrics(metrics), held=lambda: pausing.now.domains
        )
        await pausing.begin()
        await first_of(
            asyncio.create_task(
                queue.consume(pausing.holding_back(runner), concurrency=setup.concurrency), name="consumer"
            ),
            asyncio.create_task(relay.run(), name="relay"),
            asyncio.create_task(pausing.run(), name="pausing"),
            asyncio.create_task(presence.run(), name="presence"),
            asyncio.create_task(Keeping(settings, database, metrics).run(), name="keeping"),
        )

    def _handler(self, run: Run) -> Handler:
        async def repeatable(_job: Job, payload: Number) -> None:
            await run(payload.number)

        async def once(_unit: UnitOfWork, payload: Number) -> None:
            await run(payload.number)

        return JobHandler(KIND, once) if self._once else RepeatableHandler(KIND, repeatable)


def prepare(url: str) -> None:
    """Give an empty database the service's schema."""
    upgrade(DatabaseSettings(url=SecretStr(url)))


def clear(url: str) -> None:
    """No job is left, of however the last turn ended."""
    asyncio.run(_clear(url))


def completed(url: str, count: int, patience: float) -> int:
    """How many jobs stand as completed in the database, at most `patience` seconds from now."""
    return asyncio.run(_completed(url, count, patience))


async def _clear(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("TRUNCATE job, worker_presence")
    finally:
        await connection.close()


async def _completed(url: str, count: int, patience: float) -> int:
    connection = await asyncpg.connect(url)
    found = 0
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while found < count:
                    found = await connection.fetchval("SELECT count(*) FROM job WHERE outcome = 'completed'")
                    await asyncio.sleep(_COUNT_SECONDS)
    finally:
        await connection.close()
    return found


def _telemetry() -> Telemetry:
    return Telemetry.start(TelemetryConfig("bench", enabled=False, log_level="warning"))


def _database(setup: Setup, telemetry: Telemetry) -> Database:
    settings = DatabaseSettings(url=SecretStr(setup.database), pool_size=setup.concurrency)
    return Database(settings, application="bench", metrics=telemetry.metrics, holder=f"bench@{os.getpid()}")


redis = Outboxed(ours.open_redis_queue)
redis_once = Outboxed(ours.open_redis_queue, once=True)
rabbitmq = Outboxed(ours.open_rabbitmq_queue)
file = Outboxed(ours.open_file_queue)
