"""How jobs end, what stays of them, and for how long."""

import asyncio
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text, update

from observability import Metrics
from service.db.jobs import admin
from service.db.jobs.effects import Effects, JobHandler, RepeatableHandler
from service.db.jobs.failures import Failures
from service.db.jobs.keeping import Keeping
from service.db.jobs.pruning import Pruning, alone
from service.db.jobs.record import JobRecord, Outcome
from service.db.session import UnitOfWork
from service.features.transactions.models import Transaction
from service.features.transactions.settlement import SETTLEMENT, SettlementPayload
from service.infra.queues.interface import Delivery, Job, JobOptions
from tests.integration.service.harness import Service, eventually


def job(**changes: object) -> Job:
    made = Job(
        id=uuid4(), name=SETTLEMENT.name, payload={"transactionId": str(uuid4())}, due_at=datetime.now(UTC)
    )
    return made.model_copy(update=changes)


def effects(
    service: Service, handler: JobHandler[SettlementPayload] | RepeatableHandler[SettlementPayload]
) -> Effects:
    counter = Metrics(CollectorRegistry(), "test").counter("duplicate", "For this test.", ("job_name",))
    return Effects(service.container.database, [handler], counter)


def keeping(service: Service, **changes: object) -> Keeping:
    settings = service.container.settings.outbox.model_copy(update=changes)
    return Keeping(settings, service.container.database, Metrics(CollectorRegistry(), "test"))


async def sql(service: Service, statement: str) -> None:
    async with service.container.database.unit() as unit:
        await unit.session.execute(text(statement))


async def pay(unit: UnitOfWork, payload: SettlementPayload) -> None:
    unit.session.add(Transaction(amount=1, currency="EUR", reference=str(payload.transaction_id)))
    await unit.session.flush()
    await asyncio.sleep(0.05)


async def test_twenty_deliveries_at_once_have_one_effect(service: Service) -> None:
    one, perform = job(), effects(service, JobHandler(SETTLEMENT, pay)).perform
    await asyncio.gather(*(perform(one) for _ in range(20)))
    await perform(one)
    assert await service.count(Transaction) == 1
    [row] = await service.rows(JobRecord)
    assert (row.job_id, row.outcome) == (one.id, Outcome.COMPLETED)


async def test_an_effect_outside_may_happen_again_until_the_job_has_ended(service: Service) -> None:
    one, calls = job(), 0

    async def send(found: Job, payload: SettlementPayload) -> None:
        nonlocal calls
        calls += 1
        assert found.id == one.id
        if calls == 1:
            raise ConnectionError

    perform = effects(service, RepeatableHandler(SETTLEMENT, send)).perform
    with pytest.raises(ConnectionError):
        await perform(one)
    for _ in range(3):
        await perform(one)
    assert calls == 2


async def test_of_many_that_end_at_once_each_ends_once_with_a_row_or_without(service: Service) -> None:
    sent: list[UUID] = []

    async def send(found: Job, payload: SettlementPayload) -> None:
        sent.append(found.id)

    payloads = [SettlementPayload(transaction_id=uuid4()) for _ in range(20)]
    async with service.container.database.unit() as unit:
        made = await service.container.outbox.add_bulk(unit, SETTLEMENT, payloads)
        await admin.remove(unit, made[0])
    enqueued, strangers = [job(id=one) for one in made], [job() for _ in range(20)]
    perform = effects(service, RepeatableHandler(SETTLEMENT, send)).perform
    await asyncio.gather(*(perform(one) for one in enqueued + strangers))
    assert sorted(sent) == sorted(one.id for one in enqueued[1:] + strangers)
    rows = await service.rows(JobRecord)
    assert {row.job_id for row in rows if row.outcome == Outcome.COMPLETED} == set(sent)
    assert len(rows) == 40


async def test_a_dead_job_stays_dead_whatever_comes_after(service: Service) -> None:
    one, failures = job(attempt=3), Failures(service.container.database)
    await failures.retried(job(id=one.id), ValueError("first"), datetime.now(UTC))
    await failures.bury(Delivery("d", one.encode()), one, ValueError("last"))
    await failures.bury(Delivery("d", one.encode()), one, ValueError("again"))
    await failures.retried(one, ValueError("late"), datetime.now(UTC))
    await effects(service, JobHandler(SETTLEMENT, pay)).perform(one)
    [row] = await service.rows(JobRecord)
    assert (row.outcome, row.attempts) == (Outcome.DEAD, 3)
    assert [entry["error"] for entry in row.history] == ["ValueError: first", "ValueError: last"]
    assert await service.count(Transaction) == 0


async def test_interruptions_are_counted_job_by_job(service: Service) -> None:
    one, two, failures = job(), job(), Failures(service.container.database)
    assert [await failures.interrupted(one) for _ in range(3)] == [1, 2, 3]
    assert await failures.interrupted(two) == 1


async def test_a_stranger_delivered_twice_is_one_dead_letter(service: Service) -> None:
    failures = Failures(service.container.database)
    for _ in range(2):
        await failures.bury(Delivery("strange \x00 id", b"\x00\xff"), None, ValueError("\x00" * 9000))
    [row] = await service.rows(JobRecord)
    assert (row.body, row.name, row.payload, row.outcome) == (b"\x00\xff", None, None, Outcome.DEAD)
    assert len(row.history[0]["error"]) == 4000


async def test_completed_jobs_stay_for_their_time_and_the_newest_for_longer(service: Service) -> None:
    perform = effects(service, JobHandler(SETTLEMENT, _nothing)).perform
    jobs = [job(options=JobOptions(keep_completed=3)) for _ in range(10)]
    for one in jobs:
        await perform(one)
    keeper = keeping(service, keep_seconds=3600)
    await keeper.once()
    assert await service.count(JobRecord) == 10
    await sql(service, "UPDATE job SET finished_at = finished_at - interval '2 h'")
    await keeper.once()
    assert {row.job_id for row in await service.rows(JobRecord)} == {one.id for one in jobs[-3:]}


async def test_dead_letters_fail_after_their_time_or_when_there_are_too_many(service: Service) -> None:
    failures = Failures(service.container.database)
    jobs = [job(options=JobOptions(keep_failed=2)) for _ in range(10)]
    for one in jobs:
        await failures.bury(Delivery("d", one.encode()), one, ValueError())
    await keeping(service, dead_limit=8).once()
    outcomes = {row.job_id: row.outcome for row in await service.rows(JobRecord)}
    assert [outcomes[one.id] for one in jobs] == [Outcome.FAILED] * 2 + [Outcome.DEAD] * 8
    await sql(service, "UPDATE job SET finished_at = finished_at - interval '25 h'")
    keeper = keeping(service)
    for _ in range(2):  # retired, then pruned
        await keeper.once()
    assert {row.job_id for row in await service.rows(JobRecord)} == {one.id for one in jobs[-2:]}


async def test_what_the_broker_lost_is_published_again(service: Service) -> None:
    fresh, late, retried, done = job(), job(), job(), job()
    failures = Failures(service.container.database)
    for one in (fresh, late, retried, done):
        await failures.interrupted(one)  # gives it a row, as if it had been published
    await effects(service, JobHandler(SETTLEMENT, _nothing)).perform(done)
    past = {
        "published_at": datetime.now(UTC) - timedelta(hours=1),
        "due_at": datetime.now(UTC) - timedelta(hours=1),
    }
    async with service.container.database.unit() as unit:
        await unit.session.execute(update(JobRecord).where(JobRecord.job_id != fresh.id).values(**past))
    await failures.retried(retried, ValueError(), datetime.now(UTC) + timedelta(seconds=10))
    await keeping(service, republish_seconds=900).once()
    assert [row.job_id for row in await service.rows(JobRecord) if row.published_at is None] == [late.id]


async def _nothing(unit: UnitOfWork, payload: SettlementPayload) -> None:
    return None


async def ended(
    service: Service, count: int, name: str | None, outcome: Outcome = Outcome.COMPLETED, **options: int
) -> None:
    """Jobs that ended two hours ago, a millisecond apart."""
    statement = text(
        "INSERT INTO job (id, job_id, name, options, outcome, published_at, finished_at)"
        " SELECT (random() * 1e18)::bigint, gen_random_uuid(), :name, CAST(:options AS jsonb), :outcome,"
        " now(), now() - interval '2 h' + n * interval '1 ms'"
        " FROM generate_series(1, CAST(:count AS int)) AS n"
    )
    values = {"name": name, "outcome": outcome, "options": json.dumps(options), "count": count}
    async with service.container.database.unit() as unit:
        await unit.session.execute(statement, values)


async def left(service: Service) -> dict[tuple[str | None, str | None], int]:
    return dict(Counter((row.name, row.outcome) for row in await service.rows(JobRecord)))


async def test_each_name_and_outcome_keeps_its_own_newest_over_any_number_of_batches(
    service: Service,
) -> None:
    await ended(service, 250, "one.a.v1")
    await ended(service, 250, "one.b.v1", keepCompleted=7)
    await ended(service, 250, "two.a.v1", Outcome.FAILED)
    await ended(service, 250, None, Outcome.FAILED)
    await ended(service, 250, "two.a.v1", Outcome.REMOVED)
    await ended(service, 250, "two.a.v1", Outcome.DEAD)
    database, settings = service.container.database, service.container.settings.outbox
    assert await Pruning(settings, database, batch=32).once() == 150 + 243 + 200 + 200 + 250
    assert await left(service) == {
        ("one.a.v1", "completed"): 100,
        ("one.b.v1", "completed"): 7,
        ("two.a.v1", "failed"): 50,
        (None, "failed"): 50,
        ("two.a.v1", "dead"): 250,
    }
    newest = sorted(row.finished_at for row in await service.rows(JobRecord) if row.name == "one.b.v1")
    assert newest[-1] - newest[0] == timedelta(milliseconds=6)
    assert await Pruning(settings, database, batch=32).once() == 0


async def test_a_job_says_itself_among_how_many_of_its_name_it_stays(service: Service) -> None:
    await ended(service, 30, "a.b.v1", keepCompleted=2000)
    await ended(service, 300, "a.b.v1", keepCompleted=10)
    await Pruning(service.container.settings.outbox, service.container.database, batch=16).once()
    kept = Counter(row.options["keepCompleted"] for row in await service.rows(JobRecord))
    assert kept == {2000: 30, 10: 10}


async def test_one_prunes_at_a_time_and_who_comes_second_waits_for_nobody(service: Service) -> None:
    await ended(service, 150, "a.b.v1")
    other = Pruning(service.container.settings.outbox, service.container.database)
    async with service.container.database.unit() as unit:
        assert await alone(unit)
        async with asyncio.timeout(10):
            assert await other.once() == 0
            await keeping(service).once()
    assert await service.count(JobRecord) == 150
    assert await other.once() == 50


async def test_a_job_that_is_given_another_try_while_it_is_pruned_stays(service: Service) -> None:
    await ended(service, 51, "a.b.v1", Outcome.FAILED)
    oldest = min(await service.rows(JobRecord), key=lambda row: row.finished_at).id
    pruning = Pruning(service.container.settings.outbox, service.container.database)
    async with service.container.database.unit() as unit:
        await unit.session.execute(
            update(JobRecord).where(JobRecord.id == oldest).values(outcome=None, finished_at=None)
        )
        task = asyncio.create_task(pruning.once())

        async def waits() -> bool:
            found = await unit.session.scalar(
                text("SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
            )
            return bool(found)

        await eventually(waits)
    assert await task == 0
    assert await service.count(JobRecord) == 51
