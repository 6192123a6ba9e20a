"""From the request to the settled transaction, and what goes wrong on the way."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID, uuid4

import orjson
import pytest
from opentelemetry.trace import SpanKind

from service.db.jobs import outbox
from service.db.jobs.effects import JobHandler
from service.db.jobs.record import JobRecord, Outcome
from service.db.session import UnitOfWork
from service.features.transactions.models import Transaction
from service.features.transactions.settlement import SETTLEMENT, SettlementPayload
from service.infra.queues.interface import Job, JobOptions
from tests.integration.service.harness import Service, eventually

Lines = Callable[[], list[dict[str, object]]]


def settlement(transaction_id: str, **changes: object) -> Job:
    job = Job(
        id=uuid4(),
        name=SETTLEMENT.name,
        payload={"transactionId": transaction_id},
        options=JobOptions(attempts=3, backoff="fixed", backoff_seconds=0.05),
        due_at=datetime.now(UTC),
    )
    return job.model_copy(update=changes)


async def dead(service: Service) -> JobRecord:
    async def look() -> list[JobRecord]:
        return [row for row in await service.rows(JobRecord) if row.outcome == Outcome.DEAD]

    found = await eventually(look)
    assert len(found) == 1
    return found[0]


async def test_a_created_transaction_is_settled(service: Service, log_lines: Lines) -> None:
    async with service.working():
        created = await service.create()
        assert created["status"] == "pending"
        assert created["settledAt"] is None
        settled = await service.settled(created["id"])
    assert settled["version"] == created["version"] + 1
    assert settled["settledAt"] > created["createdAt"]
    assert settled["amount"] == "12.50"
    assert await service.ended() == 1
    [entry] = await service.rows(JobRecord)
    assert entry.published_at is not None
    events = [line["event"] for line in log_lines()]
    assert events.count("transaction.created") == 1
    assert events.count("transaction.settled") == 1
    assert events.count("job.done") == 1
    labels = {"status": "settled", "currency": "EUR"}
    assert service.metric("yardstick_transactions_total", labels) == 1
    assert service.metric("yardstick_jobs_done_total", {"job_name": SETTLEMENT.name}) == 1
    assert service.metric("yardstick_jobs_freshness_seconds_count", {"job_name": SETTLEMENT.name}) == 1
    assert service.metric("yardstick_outbox_published_total") == 1


async def test_the_trace_has_its_five_hops_and_one_server_span(service: Service) -> None:
    async with service.working():
        created = await service.create()
        await service.settled(created["id"])
    [server] = service.spans("POST /v1/transactions")
    trace_id = server.context.trace_id
    chain = [server]
    for name in ("outbox", "publish", "process"):
        [span] = service.spans(f"{name} {SETTLEMENT.name}")
        chain.append(span)
    chain += service.spans("transaction.settle")
    assert [span.kind for span in chain] == [
        SpanKind.SERVER, SpanKind.INTERNAL, SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.INTERNAL,
    ]  # fmt: skip
    for parent, child in pairwise(chain):
        assert child.parent is not None
        assert child.parent.span_id == parent.context.span_id
        assert child.context.trace_id == trace_id
    effect = chain[-1]
    below = [s for s in service.spans() if s.parent and s.parent.span_id == effect.context.span_id]
    assert any(s.kind is SpanKind.CLIENT for s in below)
    in_trace = [s for s in service.spans() if s.context.trace_id == trace_id]
    assert len([s for s in in_trace if s.kind is SpanKind.SERVER]) == 1
    consumer = chain[3]
    assert consumer.attributes is not None
    assert consumer.attributes["messaging.system"] == "redis"
    assert consumer.attributes["messaging.destination.name"] == "yardstick:jobs"
    [entry] = await service.rows(JobRecord)
    assert consumer.attributes["messaging.message.id"] == str(entry.job_id)


async def test_polling_makes_no_spans(service: Service) -> None:
    async with service.working():
        created = await service.create()
        await service.settled(created["id"])
    roots = {span.name for span in service.spans() if span.parent is None}
    assert roots <= {"POST /v1/transactions", "GET /v1/transactions/{transaction_id}"}


async def test_nothing_is_enqueued_for_what_is_rolled_back(service: Service, log_lines: Lines) -> None:
    async def fail() -> None:
        async with service.container.database.unit() as unit:
            unit.after_commit(lambda: pytest.fail("nothing was committed"))
            await service.container.outbox.add(unit, SETTLEMENT, SettlementPayload(transaction_id=uuid4()))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await service.count(JobRecord) == 0


async def test_a_duplicate_delivery_has_one_effect(service: Service, log_lines: Lines) -> None:
    created = await service.create()
    async with service.working():
        await service.settled(created["id"])
        [entry] = await service.rows(JobRecord)
        await service.container.queue.publish([settlement(created["id"], id=entry.job_id)])

        async def duplicate() -> bool:
            return any(line["event"] == "job.duplicate" for line in log_lines())

        await eventually(duplicate)
    assert (await service.transaction(created["id"]))["version"] == created["version"] + 1
    assert await service.ended() == 1
    assert service.metric("yardstick_transactions_total", {"status": "settled", "currency": "EUR"}) == 1
    assert await service.ended(Outcome.DEAD) == 0


async def test_publishing_a_queued_job_again_keeps_one(service: Service) -> None:
    job = settlement(str(uuid4()))
    await service.container.queue.publish([job])
    await service.container.queue.publish([job])
    assert (await service.container.queue.stats()).waiting == 1


class Flaky:
    """Fails the first times, each time with a row that must be rolled back."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.calls = 0

    async def handle(self, unit: UnitOfWork, payload: SettlementPayload) -> None:
        self.calls += 1
        transaction = Transaction(amount=1, currency="EUR", reference=f"effect {self.calls}")
        unit.session.add(transaction)
        await unit.session.flush()
        if self.calls <= self.failures:
            raise ValueError(f"failure {self.calls}")


async def test_a_job_that_fails_twice_succeeds_the_third_time(
    service: Service, monkeypatch: pytest.MonkeyPatch, log_lines: Lines
) -> None:
    flaky = Flaky(2)
    monkeypatch.setattr("service.worker.job_handlers", lambda *_: (JobHandler(SETTLEMENT, flaky.handle),))
    async with service.working():
        await service.container.queue.publish([settlement(str(uuid4()))])

        async def effect() -> int:
            return await service.ended()

        await eventually(effect)
    assert [row.reference for row in await service.rows(Transaction)] == ["effect 3"]
    jobs = [line for line in log_lines() if str(line["event"]).startswith("job.")]
    assert [(line["event"], line["attempt"]) for line in jobs] == [
        ("job.retried", 1),
        ("job.retried", 2),
        ("job.done", 3),
    ]
    assert service.metric("yardstick_jobs_retried_total", {"job_name": SETTLEMENT.name}) == 2
    assert (await service.container.queue.stats()).waiting == 0


async def test_a_job_that_always_fails_is_dead_after_its_attempts(
    service: Service, monkeypatch: pytest.MonkeyPatch, log_lines: Lines
) -> None:
    flaky = Flaky(99)
    monkeypatch.setattr("service.worker.job_handlers", lambda *_: (JobHandler(SETTLEMENT, flaky.handle),))
    job = settlement(str(uuid4()))
    async with service.working():
        await service.container.queue.publish([job])
        letter = await dead(service)
    assert (letter.job_id, letter.name, letter.attempts) == (job.id, SETTLEMENT.name, 3)
    assert [entry["error"] for entry in letter.history] == [f"ValueError: failure {n}" for n in (1, 2, 3)]
    assert letter.payload == job.payload
    assert flaky.calls == 3
    assert await service.count(Transaction) == 0
    assert (await service.container.queue.stats()).waiting == 0
    assert "job.dead" in [line["event"] for line in log_lines()]


async def test_a_job_over_its_time_is_tried_again(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def slow_once(unit: UnitOfWork, payload: SettlementPayload) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            await asyncio.sleep(60)

    monkeypatch.setattr("service.worker.job_handlers", lambda *_: (JobHandler(SETTLEMENT, slow_once),))
    options = JobOptions(attempts=2, backoff="fixed", backoff_seconds=0.01, timeout_seconds=2)
    async with service.working():
        await service.container.queue.publish([settlement(str(uuid4()), options=options)])

        async def effect() -> int:
            return await service.ended()

        await eventually(effect)
    assert calls == 2


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not a job envelope"),
        (b"\xff\xfe\x00", "not a job envelope"),
        (b"[]", "not a job envelope"),
        (b'{"id":"x"}', "not a job envelope"),
        (b'{"id":1,"name":"\\u0000"}' * 50, "not a job envelope"),
    ],
)
async def test_a_malformed_message_is_dead_at_once(service: Service, body: bytes, reason: str) -> None:
    await enqueue_raw(service, "poison\x00id", body)
    async with service.working():
        letter = await dead(service)
    assert letter.body == body
    assert reason in letter.history[-1]["error"]
    assert service.metric("yardstick_jobs_dead_total", {"job_name": "_malformed"}) == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "transaction.vanish.v9"}, "no job is named transaction.vanish.v9"),
        ({"payload": {"transactionId": "no uuid"}}, "payload is not valid"),
        ({"payload": {"transactionId": str(UUID(int=0))}}, "There is no such transaction"),
    ],
)
async def test_a_job_that_cannot_succeed_is_dead_at_once(
    service: Service, changes: dict[str, object], reason: str
) -> None:
    await service.container.queue.publish([settlement(str(uuid4()), **changes)])
    async with service.working():
        letter = await dead(service)
    assert reason in letter.history[-1]["error"]
    assert letter.attempts == 1


async def enqueue_raw(service: Service, job_id: str, body: bytes) -> None:
    """Put a message where arq finds it."""
    await service.container.redis.set(f"arq:job:{job_id}", body)
    await service.container.redis.zadd(service.container.queue.name, {job_id: 1})


async def test_the_envelope_is_json_of_the_contract(service: Service) -> None:
    created = await service.create()
    async with service.container.database.unit() as unit:
        [entry] = await outbox.claim_pending(unit, 10, 0)
    envelope = orjson.loads(entry.job({}).encode())
    assert envelope.keys() == {"id", "name", "payload", "attempt", "options", "meta", "dueAt"}
    assert envelope["payload"] == {"transactionId": created["id"]}
    assert envelope["meta"].keys() >= {
        "correlationId", "userId", "tenant", "source", "timestamp", "traceparent",
    }  # fmt: skip
    assert envelope["meta"]["source"] == "yardstick-api"


async def test_gauges_show_queue_and_outbox(service: Service) -> None:
    await service.container.queue.publish(
        [settlement(str(uuid4()), options=JobOptions(attempts=3, backoff="fixed", backoff_seconds=60))]
    )

    async def sampled() -> bool:
        return service.metric("yardstick_queue_depth", {"queue": "yardstick:jobs"}) == 0

    async with service.working():
        await eventually(sampled)
    assert service.metric("yardstick_outbox_pending") == 0

    async def given_back() -> bool:
        # What measures in the background has one now and then.
        return service.metric("yardstick_db_pool_connections", {"state": "used"}) == 0

    await eventually(given_back)
