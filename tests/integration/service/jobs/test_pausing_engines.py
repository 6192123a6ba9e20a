"""What a pause promises, on every engine: what runs ends, nothing else begins, nothing is lost."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from uuid import UUID

import pytest
from sqlalchemy import update

from service import worker
from service.db.jobs.effects import JobHandler
from service.db.jobs.record import JobRecord, Outcome
from service.db.session import UnitOfWork
from service.features.transactions.settlement import SETTLEMENT, SettlementPayload
from service.settings import Settings
from tests.integration.service.harness import Service, eventually, running
from tests.integration.service.jobs.admin import TOKEN, Operator, enqueue, now

Configure = Callable[..., Settings]

CONCURRENCY = 3


class Held:
    """A handler that begins, and ends once it may."""

    def __init__(self) -> None:
        self.begun: Counter[UUID] = Counter()
        self.ended: Counter[UUID] = Counter()
        self.gate = asyncio.Event()

    async def handle(self, _: UnitOfWork, payload: SettlementPayload) -> None:
        self.begun[payload.transaction_id] += 1
        await self.gate.wait()
        self.ended[payload.transaction_id] += 1


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    """In the place of what the worker does."""
    found = Held()
    monkeypatch.setattr(worker, "job_handlers", lambda *_: (JobHandler(SETTLEMENT, found.handle),))
    return found


@pytest.fixture
async def on_engine(configure: Configure, engine: dict[str, object]) -> AsyncIterator[Service]:
    settings = configure(
        QUEUE_ADMIN_TOKEN=TOKEN, QUEUE_CONCURRENCY=CONCURRENCY, QUEUE_SAMPLE_SECONDS=0.2, **engine
    )
    async with running(settings) as service:
        yield service


async def paused(service: Service, *, whole: bool) -> None:
    """The worker has heard of it."""

    async def look() -> bool:
        return service.metric("yardstick_queue_paused", {"queue": service.container.queue.name}) == whole

    await eventually(look)


async def completed(service: Service, count: int) -> None:
    async def look() -> bool:
        return await service.ended() == count

    await eventually(look, within=60)


async def published(service: Service, count: int) -> None:
    """So many jobs that have not ended were carried to the broker."""

    async def look() -> bool:
        rows = await service.rows(JobRecord)
        return len([row for row in rows if row.published_at is not None and row.outcome is None]) == count

    await eventually(look)


async def test_what_runs_ends_what_waits_stays_and_a_resume_goes_on(on_engine: Service, held: Held) -> None:
    service, operator = on_engine, Operator(on_engine.http)
    await enqueue(service, 12)
    async with service.working():

        async def full() -> bool:
            return len(held.begun) == CONCURRENCY

        await eventually(full)
        [pause] = await operator.data("POST", "/pause", json={"reason": "migration"})
        assert (pause["domain"], pause["reason"]) == (None, "migration")
        await paused(service, whole=True)
        await enqueue(service, 5)
        held.gate.set()
        await completed(service, CONCURRENCY)
        # The relay does not stand still: what is enqueued meanwhile is with the broker.
        await published(service, 17 - CONCURRENCY)
        await asyncio.sleep(1)
        assert len(held.begun) == CONCURRENCY
        assert (await operator.stats())["total"]["waiting"] == 17 - CONCURRENCY
        assert await operator.data("POST", "/resume") == []
        await completed(service, 17)
    assert len(held.ended) == 17
    assert set(held.begun.values()) == set(held.ended.values()) == {1}


async def test_a_worker_that_comes_and_goes_in_a_pause_takes_and_loses_nothing(
    on_engine: Service, held: Held
) -> None:
    held.gate.set()
    operator = Operator(on_engine.http)
    await operator.data("POST", "/pause")
    await enqueue(on_engine, 5)
    for _ in range(2):
        async with running(on_engine.container.settings) as service, service.working():
            await paused(service, whole=True)
            await published(service, 5)
            await asyncio.sleep(1)
    assert held.begun == {}
    await operator.data("POST", "/resume")
    async with running(on_engine.container.settings) as service, service.working():
        await completed(service, 5)
    assert set(held.ended.values()) == {1}


async def test_a_paused_domain_waits_in_the_outbox_and_others_go_on(on_engine: Service) -> None:
    service, operator = on_engine, Operator(on_engine.http)
    first = await operator.data("POST", "/pause", json={"domain": "email"})
    assert [pause["domain"] for pause in first] == ["email"]
    waiting = set(await enqueue(service, 3))
    # They reach the broker before the domain is paused.
    async with service.container.database.unit() as unit:
        long_ago = {"name": "email.welcome.v1", "published_at": now(), "due_at": now()}
        await unit.session.execute(update(JobRecord).values(long_ago))
    rows = await service.rows(JobRecord)
    await service.container.queue.publish([row.job({}) for row in rows])
    async with service.working():
        await service.settled((await service.create())["id"])

        async def handed_back() -> bool:
            found = {row.job_id for row in await service.rows(JobRecord) if row.published_at is None}
            return found == waiting

        await eventually(handed_back)

        async def told() -> bool:
            # They wait on purpose, and not for a relay that is away, which would page.
            return [service.metric(f"yardstick_outbox_{name}") for name in ("held", "pending")] == [3, 0]

        async def counted() -> bool:
            # They are work to be done nonetheless, of which there is a most.
            return service.metric("yardstick_jobs_backlog") == 3

        await eventually(told)
        await eventually(counted)
        assert service.metric("yardstick_outbox_oldest_age_seconds") == 0
        await paused(service, whole=False)
        stats = await service.container.queue.stats()
        assert (stats.waiting, stats.delayed) == (0, 0)
        rows = await service.rows(JobRecord)
        assert len([row for row in rows if row.outcome is not None or row.history]) == 1
        await operator.data("POST", "/resume", json={"domain": "email"})

        async def buried() -> bool:
            # Nobody handles such jobs here: that they are dead shows that they were delivered.
            return await service.ended(Outcome.DEAD) == 3

        await eventually(buried)
