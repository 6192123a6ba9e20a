"""Enqueueing, and carrying what was enqueued to the queue."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from observability import Metrics
from service.db.jobs import backlog
from service.db.jobs.outbox import job_id_of
from service.db.jobs.record import JobRecord, Outcome
from service.db.jobs.relay import Relay, RelayMetrics
from service.errors import UnavailableError
from service.features.transactions.settlement import SETTLEMENT, SettlementPayload
from service.infra.queues.interface import Job, JobError, JobOptions, QueueStats, RefusedJobError, Runner
from tests.integration.service.harness import Service, eventually


class Broker:
    """A broker that remembers what it was given, refuses what it is told to, and can be away."""

    system = name = "test"

    def __init__(self) -> None:
        self.batches: list[list[Job]] = []
        self.refuses: set[str] = set()
        self.away = False

    @property
    def jobs(self) -> list[Job]:
        return [job for batch in self.batches for job in batch]

    async def publish(self, jobs: Sequence[Job]) -> list[JobError | None]:
        if self.away:
            raise UnavailableError
        self.batches.append(list(jobs))
        return [
            RefusedJobError("too large") if job.payload["transactionId"] in self.refuses else None
            for job in jobs
        ]

    async def consume(self, run: Runner, *, concurrency: int) -> None: ...
    async def pause(self) -> None: ...
    async def resume(self) -> None: ...
    async def stop(self, grace: float) -> None: ...
    async def ping(self) -> None: ...
    async def close(self) -> None: ...
    async def stats(self) -> QueueStats:
        return QueueStats(0, 0)


def relay(service: Service, broker: Broker, **changes: object) -> Relay:
    container = service.container
    settings = container.settings.outbox.model_copy(update=changes)
    metrics = RelayMetrics(Metrics(CollectorRegistry(), "test"))
    return Relay(settings, container.database, broker, container.jobs, metrics)


@asynccontextmanager
async def relaying(service: Service, broker: Broker, **changes: object) -> AsyncIterator[Relay]:
    one = relay(service, broker, **changes)
    task = asyncio.create_task(one.run())
    try:
        yield one
    finally:
        one.stop()
        await asyncio.wait_for(task, 10)


async def enqueue(service: Service, count: int = 1, **options: object) -> list[JobRecord]:
    payloads = [SettlementPayload(transaction_id=uuid4()) for _ in range(count)]
    async with service.container.database.unit() as unit:
        await service.container.outbox.add_bulk(unit, SETTLEMENT, payloads, **options)  # type: ignore[arg-type]
    return await service.rows(JobRecord)


async def published(broker: Broker, count: int) -> list[Job]:
    async def enough() -> bool:
        return len(broker.jobs) >= count

    await eventually(enough)
    return broker.jobs


async def test_a_job_with_the_same_id_is_enqueued_once(service: Service) -> None:
    key = job_id_of("settle invoice 7")
    assert key == job_id_of("settle invoice 7") != job_id_of("settle invoice 8")
    payload = SettlementPayload(transaction_id=uuid4())
    async with service.container.database.unit() as unit:
        for _ in range(2):
            assert await service.container.outbox.add(unit, SETTLEMENT, payload, job_id=key) == key
    async with service.container.database.unit() as unit:
        await service.container.outbox.add(unit, SETTLEMENT, payload, job_id=key)
    assert await service.count(JobRecord) == 1


async def test_many_jobs_are_enqueued_in_their_order_and_published_in_it(service: Service) -> None:
    payloads = [SettlementPayload(transaction_id=uuid4()) for _ in range(2345)]
    async with service.container.database.unit() as unit:
        ids = await service.container.outbox.add_bulk(unit, SETTLEMENT, payloads)
        assert await service.container.outbox.add_bulk(unit, SETTLEMENT, []) == []
    broker = Broker()
    one = relay(service, broker, batch=1000)
    assert [await one.relay_batch() for _ in range(4)] == [1000, 1000, 345, 0]
    assert [job.id for job in broker.jobs] == ids
    assert [job.payload["transactionId"] for job in broker.jobs] == [str(p.transaction_id) for p in payloads]


async def test_a_commit_wakes_the_relay_long_before_its_poll(service: Service) -> None:
    broker = Broker()
    async with relaying(service, broker, poll_seconds=600):
        for count in (1, 2, 3):
            await enqueue(service)
            await published(broker, count)


async def test_the_relay_hears_again_after_its_connection_was_lost(service: Service) -> None:
    broker = Broker()
    async with relaying(service, broker, poll_seconds=600):
        await enqueue(service)
        await published(broker, 1)
        async with service.container.database.unit() as unit:
            ended = await unit.session.scalars(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE query LIKE 'LISTEN%' AND datname = current_database()"
                )
            )
            assert list(ended) == [True]
        await enqueue(service)
        await published(broker, 2)


async def test_without_notifications_the_poll_finds_it(service: Service) -> None:
    broker = Broker()
    async with relaying(service, broker, poll_seconds=0.05):
        await enqueue(service)
        await published(broker, 1)
        async with service.container.database.unit() as unit:
            await unit.session.execute(text("UPDATE job SET published_at = NULL"))  # notifies nobody
        await published(broker, 2)


async def test_a_job_that_is_due_much_later_waits_in_the_database(service: Service) -> None:
    broker = Broker()
    soon, *_ = await enqueue(service, delay=20)
    await enqueue(service, delay=3600)
    one = relay(service, broker)
    assert await one.relay_batch() == 1
    [job] = broker.jobs
    assert job.id == soon.job_id
    assert timedelta(seconds=15) < job.due_at - datetime.now(UTC) <= timedelta(seconds=20)
    async with service.container.database.unit() as unit:
        found = await backlog.measure(unit)
        assert (found.pending, found.open) == (0, 0)
        await unit.session.execute(text("UPDATE job SET due_at = now() - interval '5 s'"))
        found = await backlog.measure(unit)
    assert (found.pending, found.open) == (1, 1)
    assert 4 < found.open_age < 60
    assert await one.relay_batch() == 1


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_host_whose_clock_is_wrong_delays_nothing(
    service: Service, hours: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue takes the delay from its host's time, and the database has dated the job by its own."""
    wrong = timedelta(hours=hours)
    monkeypatch.setattr("service.db.jobs.relay.now", lambda: datetime.now(UTC) + wrong)
    broker = Broker()
    await enqueue(service)
    await enqueue(service, delay=20)
    assert await relay(service, broker).relay_batch() == 2
    due, delayed = (job.due_at - (datetime.now(UTC) + wrong) for job in broker.jobs)
    assert timedelta(seconds=-30) < due <= timedelta(seconds=1)
    assert timedelta(seconds=1) < delayed <= timedelta(seconds=21)


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), 1e12])
async def test_a_delay_that_is_none_is_refused(service: Service, delay: float) -> None:
    with pytest.raises(ValueError, match="delay"):
        await enqueue(service, delay=delay)
    assert await service.count(JobRecord) == 0


async def test_what_the_broker_refuses_is_a_dead_letter_and_the_rest_goes_on(service: Service) -> None:
    broker = Broker()
    rows = await enqueue(service, 5)
    refused = rows[2]
    assert refused.payload is not None
    broker.refuses = {refused.payload["transactionId"]}
    assert await relay(service, broker).relay_batch() == 5
    after = {row.job_id: row for row in await service.rows(JobRecord)}
    assert after[refused.job_id].outcome == Outcome.DEAD
    assert "RefusedJobError: too large" in after[refused.job_id].history[-1]["error"]
    assert [row.outcome for row in after.values()].count(None) == 4
    assert all(row.published_at for row in after.values() if row.outcome is None)


async def test_nothing_is_marked_while_the_broker_is_away(service: Service) -> None:
    broker = Broker()
    broker.away = True
    await enqueue(service, 3)
    with pytest.raises(UnavailableError):
        await relay(service, broker).relay_batch()
    assert {row.published_at for row in await service.rows(JobRecord)} == {None}
    async with relaying(service, broker):
        broker.away = False
        assert len(await published(broker, 3)) == 3


async def test_options_of_one_job_stand_above_its_kinds(service: Service) -> None:
    options = JobOptions(attempts=7, priority="bulk")
    [row] = await enqueue(service, options=options)
    assert row.job({}).options == options
