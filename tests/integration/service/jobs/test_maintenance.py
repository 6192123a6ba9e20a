"""What maintenance removes, what it leaves, and that both jobs come by the clock over every engine."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import Column, DateTime, ForeignKey, Integer, MetaData, Table, text, update

from service.db.jobs.keeping import Keeping
from service.db.jobs.record import JobRecord, Outcome
from service.db.jobs.schedules import ScheduleRecord
from service.db.session import Database
from service.features.maintenance import jobs, operations
from service.features.maintenance.kinds import CLEANUP, FILES, MaintenancePayload
from service.features.transactions.models import Transaction
from service.infra.queues.interface import Job
from service.infra.storage.interface import Storage
from service.scheduler import run_schedules
from service.settings import MaintenanceSettings, Settings
from tests.contract.queues.rabbitmq_broker import amqp_url
from tests.contract.storage.conftest import bucket, local_storage, root, s3, s3_storage, storage
from tests.integration.service.harness import Service, eventually, running

__all__ = ["amqp_url", "bucket", "local_storage", "root", "s3", "s3_storage", "storage"]

Configure = Callable[..., Settings]
DAY = timedelta(days=1)


async def content() -> AsyncIterator[bytes]:
    yield b"generated"


async def put(storage: Storage, *keys: str) -> None:
    for key in keys:
        await storage.put(key, content(), content_type="text/plain")


async def keys(storage: Storage) -> list[str]:
    return [entry.key for entry in await storage.list()]


@pytest.fixture
def removals(service: Service) -> jobs.Removals:
    return jobs.Removals(service.container.telemetry.metrics)


async def remove(storage: Storage, at: datetime, removals: jobs.Removals) -> None:
    """The files job for that time, as a worker runs it."""
    handler = jobs.files(MaintenanceSettings(), storage, removals)
    await handler.handle(made(at), MaintenancePayload(scheduled_at=at))


def made(at: datetime) -> Job:
    payload = MaintenancePayload(scheduled_at=at).model_dump(mode="json", by_alias=True)
    return Job(id=uuid4(), name=FILES.name, payload=payload, due_at=at)


async def test_generated_files_are_removed_after_24_hours_and_not_before(
    service: Service, storage: Storage, removals: jobs.Removals
) -> None:
    await put(
        storage, "reports/a.csv", "reports/2026/b.csv", "reports.csv", "reports-old/c.csv", "users/d.png"
    )
    entries = await storage.list("reports")
    oldest, newest = min(e.modified_at for e in entries), max(e.modified_at for e in entries)
    await remove(storage, oldest + DAY - timedelta(seconds=1), removals)
    assert len(await keys(storage)) == 5
    await remove(storage, newest + DAY + timedelta(seconds=1), removals)
    assert await keys(storage) == ["reports-old/c.csv", "reports.csv", "users/d.png"]
    await remove(storage, newest + 2 * DAY, removals)
    assert service.metric("yardstick_maintenance_removed_total", {"source": "reports"}) == 2


async def test_each_file_is_judged_by_its_own_age_page_after_page(
    removals: jobs.Removals, local_storage: Storage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "BATCH", 3)
    names = [f"reports/{number:02}.csv" for number in range(11)]
    await put(local_storage, *names)
    now = datetime.now(UTC)
    for number, name in enumerate(names):
        age = DAY + timedelta(seconds=60 if number % 3 else -60)
        os.utime(root / name, times=((now - age).timestamp(),) * 2)
    await remove(local_storage, now, removals)
    assert await keys(local_storage) == [name for number, name in enumerate(names) if number % 3 == 0]


async def cleanup(service: Service, at: datetime, **changes: int) -> None:
    container = service.container
    metrics = container.telemetry.metrics
    keeping = Keeping(container.settings.outbox, container.database, metrics)
    settings = MaintenanceSettings.model_validate(changes)
    handler = jobs.cleanup(settings, container.database, keeping, jobs.Removals(metrics))
    await handler.handle(made(at), MaintenancePayload(scheduled_at=at))


async def test_deleted_rows_are_removed_after_their_time(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "BATCH", 2)
    for number in range(9):
        await service.create(reference=f"r{number}")
    at = datetime.now(UTC)
    ages = {f"r{number}": timedelta(seconds=100 + (1 if number < 5 else -1)) for number in range(7)}
    async with service.container.database.unit() as unit:
        for reference, age in ages.items():
            await unit.session.execute(
                update(Transaction).where(Transaction.reference == reference).values(deleted_at=at - age)
            )
    await cleanup(service, at, deleted_seconds=100)
    async with service.container.database.unit() as unit:
        left = await unit.session.scalars(text("SELECT reference FROM transaction ORDER BY reference"))
        assert left.all() == ["r5", "r6", "r7", "r8"]
    assert service.metric("yardstick_maintenance_removed_total", {"source": "transaction"}) == 5


async def test_cleanup_retires_ended_jobs_too(service: Service) -> None:
    await service.create()
    async with service.container.database.unit() as unit:
        past = datetime.now(UTC) - timedelta(days=40)
        await unit.session.execute(
            update(JobRecord).values(outcome=Outcome.REMOVED, finished_at=past, published_at=past)
        )
    await cleanup(service, datetime.now(UTC))
    assert await service.count(JobRecord) == 0


async def test_a_deleted_row_stays_while_another_refers_to_it(service: Service) -> None:
    metadata = MetaData()
    parent = Table(
        "parent", metadata, Column("id", Integer, primary_key=True), Column("deleted_at", DateTime(True))
    )
    child = Table(
        "child",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("deleted_at", DateTime(True)),
        Column("parent_id", ForeignKey(parent.c.id)),
        Column("before_id", ForeignKey("child.id")),
    )
    notes = Table(
        "notes", metadata, Column("parent_id", ForeignKey(parent.c.id, ondelete="CASCADE"), primary_key=True)
    )
    database: Database = service.container.database
    async with database.engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
        old = datetime.now(UTC) - timedelta(days=40)
        await connection.execute(parent.insert(), [{"id": n, "deleted_at": old} for n in (1, 2, 3)])
        # 1 is held by a child that lives; 2 by one that goes as well; 3 by notes that give way.
        await connection.execute(
            child.insert(),
            [
                {"id": 2, "deleted_at": old, "parent_id": None, "before_id": None},
                {"id": 1, "deleted_at": None, "parent_id": 1, "before_id": 2},
                {"id": 3, "deleted_at": old, "parent_id": 2, "before_id": None},
            ],
        )
        await connection.execute(notes.insert(), [{"parent_id": 3}])
    before = datetime.now(UTC) - timedelta(days=30)
    removed = await operations.remove_deleted(database, [parent, child], metadata, before=before)
    assert removed == {"child": 1, "parent": 2}
    async with database.engine.connect() as connection:
        assert list(await connection.scalars(text("SELECT id FROM parent"))) == [1]
        assert sorted(await connection.scalars(text("SELECT id FROM child"))) == [1, 2]


@pytest.mark.parametrize("engine", ["redis", "file", "rabbitmq"])
async def test_both_come_by_the_clock_over_every_engine(
    configure: Configure, request: pytest.FixtureRequest, tmp_path: Path, engine: str
) -> None:
    changes = {
        "QUEUE_ENGINE": engine,
        "QUEUE_FILE_PATH": tmp_path / "queue.db",
        "FILES_ROOT": tmp_path / "files",
    }
    if engine == "rabbitmq":
        changes |= {
            "QUEUE_RABBITMQ_URL": request.getfixturevalue("amqp_url"),
            "QUEUE_NAME": f"t-{os.getpid()}",
        }
    async with running(configure(SCHEDULER_POLL_SECONDS=0.1, **changes)) as service:
        await put(service.container.files, "reports/a.csv")
        os.utime(tmp_path / "files" / "reports" / "a.csv", times=(0, 0))
        stopping = asyncio.Event()
        scheduling = asyncio.create_task(run_schedules(service.container, stopping))

        async def scheduled() -> bool:
            return await service.count(ScheduleRecord) == 2

        async def done() -> bool:
            ended = {row.name for row in await service.rows(JobRecord) if row.outcome == Outcome.COMPLETED}
            return ended == {CLEANUP.name, FILES.name}

        try:
            await eventually(scheduled)
            async with service.container.database.unit() as unit:
                missed = ScheduleRecord.next_due - timedelta(days=3)
                await unit.session.execute(update(ScheduleRecord).values(next_due=missed))
            async with service.working():
                await eventually(done, within=60)
        finally:
            stopping.set()
            await scheduling
        assert await keys(service.container.files) == []
        assert await service.count(JobRecord) == 2
