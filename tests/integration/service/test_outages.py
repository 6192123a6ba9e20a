"""The service while what it depends on is away, and after it has come back. No restart in between."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from compose.native import Stack
from observability import Metrics
from service.db import migrate
from service.db.jobs.effects import JobHandler
from service.db.jobs.record import JobRecord
from service.db.jobs.relay import Relay, RelayMetrics
from service.db.session import UnitOfWork
from service.errors import UnavailableError
from service.features.transactions.models import Transaction
from service.features.transactions.settlement import SETTLEMENT, SettlementPayload
from service.infra.queues.interface import Job, JobOptions
from service.settings import DatabaseSettings, Settings
from tests.integration.service.conftest import aside
from tests.integration.service.harness import BODY, Service, eventually, running

Configure = Callable[..., Settings]
Lines = Callable[[], list[dict[str, object]]]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    """Servers that only this test has, and may stop."""
    with Stack(tmp_path / "stack", only=("postgres", "redis")) as stack:
        database = DatabaseSettings.model_validate({"url": stack.endpoints()["postgres"]})
        aside(lambda: migrate.upgrade(database))
        yield stack


@pytest.fixture
def settings(own: Stack, configure: Configure) -> Settings:
    urls = own.endpoints()
    return configure(
        DATABASE_URL=urls["postgres"],
        REDIS_URL=urls["redis"],
        DATABASE_CONNECT_TIMEOUT_SECONDS=2,
        DATABASE_POOL_TIMEOUT_SECONDS=2,
    )


async def ready(service: Service, status: int) -> httpx.Response:
    async def look() -> httpx.Response | None:
        answer = await service.http.get("/health/ready")
        return answer if answer.status_code == status else None

    return await eventually(look, every=0.1)


async def refused(service: Service) -> None:
    answer = await service.http.post("/v1/transactions", json=BODY)
    assert answer.status_code == 503, answer.text
    body = answer.json()
    assert body["error"]["code"] == "unavailable"
    assert body["meta"]["requestId"] == answer.headers["x-request-id"]
    assert int(answer.headers["retry-after"]) > 0


async def test_redis_down_between_commit_and_enqueue(
    own: Stack, settings: Settings, log_lines: Lines
) -> None:
    async with running(settings) as service, service.working():
        await ready(service, 200)
        await asyncio.to_thread(own.stop, "redis")
        created = [await service.create(reference=f"r{n}") for n in range(5)]
        assert (await ready(service, 200)).json()["data"]["status"] == "ready"

        async def degraded() -> bool:
            body = (await service.http.get("/health")).json()["data"]
            return bool(body["status"] == "degraded" and body["dependencies"]["queue"]["status"] == "down")

        await eventually(degraded, every=0.1)
        assert {entry.published_at for entry in await service.rows(JobRecord)} == {None}
        assert (await service.transaction(created[0]["id"]))["status"] == "pending"
        await asyncio.to_thread(own.start, "redis")
        for transaction in created:
            settled = await service.settled(transaction["id"], within=30)
            assert settled["version"] == transaction["version"] + 1
        assert await service.ended() == 5
        events = [line["event"] for line in log_lines()]
        assert events.count("transaction.settled") == 5
        assert "outbox.unavailable" in events


async def test_a_queued_job_survives_a_restart_of_redis(own: Stack, settings: Settings) -> None:
    async with running(settings) as service:
        created = await service.create()
        relay = Relay(
            settings.outbox,
            service.container.database,
            service.container.queue,
            service.container.jobs,
            RelayMetrics(Metrics(CollectorRegistry(), "test")),
        )
        assert await relay.relay_batch() == 1
        assert await relay.relay_batch() == 0
        await asyncio.to_thread(own.stop, "redis")
        await asyncio.to_thread(own.start, "redis")
        assert (await service.container.queue.stats()).waiting == 1
        async with service.working():
            await service.settled(created["id"], within=30)


async def test_the_database_killed_and_back(own: Stack, settings: Settings) -> None:
    async with running(settings) as service, service.working():
        before = [await service.create(reference=f"r{n}") for n in range(5)]
        await asyncio.to_thread(own.kill, "postgres")
        await refused(service)
        assert (await ready(service, 503)).json()["error"]["code"] == "unavailable"
        assert (await service.http.get("/health/live")).status_code == 200
        assert (await service.http.get("/health")).json()["data"]["status"] == "down"
        await asyncio.to_thread(own.start, "postgres")
        await ready(service, 200)
        after = await service.create(reference="after")
        for transaction in [*before, after]:
            assert (await service.settled(transaction["id"], within=40))["version"] == 2
        assert await service.ended() == 6


async def test_a_restart_of_the_database_between_requests_is_not_noticed(
    own: Stack, settings: Settings
) -> None:
    async with running(settings) as service:
        await asyncio.gather(*(service.create(reference=f"r{n}") for n in range(5)))
        await asyncio.to_thread(own.stop, "postgres")
        await asyncio.to_thread(own.start, "postgres")
        for number in range(6):
            await service.create(reference=f"after {number}")


async def test_started_before_its_dependencies(own: Stack, settings: Settings, log_lines: Lines) -> None:
    await asyncio.to_thread(own.stop, "postgres")
    await asyncio.to_thread(own.stop, "redis")
    async with running(settings) as service, service.working():
        assert (await service.http.get("/health/live")).status_code == 200
        assert (await service.http.get("/health/ready")).status_code == 503
        await refused(service)

        async def told() -> dict[str, object] | None:
            return next((line for line in log_lines() if line["event"] == "dependencies.down"), None)

        waiting = (await eventually(told))["waitingFor"]
        assert isinstance(waiting, dict)
        assert waiting.keys() == {"database", "cache", "queue"}
        await asyncio.to_thread(own.start, "postgres")
        await asyncio.to_thread(own.start, "redis")
        await ready(service, 200)
        created = await service.create()
        await service.settled(created["id"], within=30)
        assert settings.database.url.get_secret_value().split(":")[2].split("@")[0] not in str(log_lines())


async def test_an_outage_uses_up_no_attempt(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.infra.queues.runner.OUTAGE_DELAY", 0.01)
    calls = 0

    async def away_first(unit: UnitOfWork, payload: SettlementPayload) -> None:
        nonlocal calls
        calls += 1
        if calls <= 5:
            raise UnavailableError

    monkeypatch.setattr("service.worker.job_handlers", lambda *_: (JobHandler(SETTLEMENT, away_first),))
    async with service.working():
        job = Job(
            id=uuid4(),
            name=SETTLEMENT.name,
            payload={"transactionId": str(uuid4())},
            options=JobOptions(attempts=1),
            due_at="2026-11-21T00:00:00Z",
        )
        await service.container.queue.publish([job])

        async def effect() -> int:
            return await service.ended()

        await eventually(effect)
    assert calls == 6


async def test_a_slow_statement_is_unavailable(configure: Configure) -> None:
    async with running(configure(DATABASE_STATEMENT_TIMEOUT_MS=100)) as service:

        async def sleep() -> None:
            async with service.container.database.unit() as unit:
                await unit.session.execute(text("SELECT pg_sleep(30)"))

        with pytest.raises(UnavailableError):
            await sleep()
        await service.create()


async def test_an_exhausted_pool_is_503_until_a_connection_is_free(configure: Configure) -> None:
    settings = configure(
        DATABASE_POOL_SIZE=1,
        DATABASE_MAX_OVERFLOW=0,
        DATABASE_POOL_TIMEOUT_SECONDS=1,
        QUEUE_SAMPLE_SECONDS=3600,  # what measures in the background takes a connection too, now and then
    )
    async with running(settings) as service:

        async def measured() -> bool:
            return service.metric("yardstick_jobs_workers") == 0

        await eventually(measured)
        async with service.container.database.unit():
            assert service.metric("yardstick_db_pool_connections", {"state": "used"}) == 1
            await refused(service)
        await service.create()


async def test_a_commit_that_fails_is_no_201(service: Service) -> None:
    """A constraint that is checked at the commit stands for whatever can go wrong there."""
    async with service.container.database.unit() as unit:
        await unit.session.execute(
            text(
                "ALTER TABLE transaction ADD CONSTRAINT once UNIQUE (reference) DEFERRABLE INITIALLY DEFERRED"
            )
        )
    await service.create(reference="same")
    answer = await service.http.post("/v1/transactions", json=BODY | {"reference": "same"})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert await service.count(Transaction) == 1
    assert await service.count(JobRecord) == 1
    labels = {"status": "pending", "currency": "EUR"}
    assert service.metric("yardstick_transactions_total", labels) == 1
