"""A pause stops deliveries, of every worker and for as long as it stands; enqueueing goes on."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from sqlalchemy import text, update

from observability import Metrics
from service.db.jobs.keeping import Keeping
from service.db.jobs.record import JobRecord
from service.settings import Settings
from tests.integration.service.harness import Service, eventually, running
from tests.integration.service.jobs.admin import TOKEN, Operator, enqueue, now
from tests.integration.service.launched import Process

Configure = Callable[..., Settings]


async def reaches(service: Service, name: str, value: float) -> None:
    async def look() -> bool:
        return service.metric(name) == value

    await eventually(look)


async def published(service: Service, count: int) -> None:
    """The relay has carried so many jobs that have not ended to the broker."""

    async def look() -> bool:
        rows = await service.rows(JobRecord)
        return len([row for row in rows if row.published_at is not None and row.outcome is None]) == count

    await eventually(look)


async def attempts(service: Service) -> int:
    """How many jobs somebody ended or tried."""
    rows = await service.rows(JobRecord)
    return len([row for row in rows if row.outcome is not None or row.history])


async def test_pauses_stand_each_by_itself(operator: Operator) -> None:
    for body in ({"reason": "first"}, {"reason": "second"}, {"domain": "sms"}):
        pauses = await operator.data("POST", "/pause", json=body)
    assert [(one["domain"], one["reason"]) for one in pauses] == [(None, "first"), ("sms", "")]
    answer = (await operator.ask("POST", "/resume")).json()
    assert (answer["message"], [one["domain"] for one in answer["data"]]) == ("Resumed", ["sms"])
    assert (await operator.ask("POST", "/resume")).json()["message"] == "It was not paused"
    for wrong in ({"domain": "no such"}, {"reason": "x" * 201}, {"reason": "a\0b"}, {"surprise": 1}):
        assert await operator.refused("POST", "/pause", json=wrong) == (422, "validation_failed")


@asynccontextmanager
async def worker(folder: Path) -> AsyncIterator[Process]:
    process = Process("service.worker", folder)
    try:
        await process.up()
        yield process
    finally:
        process.end()


async def test_a_pause_survives_the_restart_of_every_worker(configure: Configure, tmp_path: Path) -> None:
    settings = configure(QUEUE_ADMIN_TOKEN=TOKEN, TELEMETRY_LOG_SINK="stdout")
    async with running(settings) as service:
        operator = Operator(service.http)

        async def workers() -> list[dict[str, Any]] | None:
            return (await operator.stats())["workers"] or None

        async with worker(tmp_path) as one:
            await service.settled((await service.create())["id"])
            await operator.data("POST", "/pause")

            async def paused() -> bool:
                return "worker.paused" in one.events()

            await eventually(paused)
            created = await service.create()
            await published(service, 1)
            one.popen.terminate()
            assert await one.ended() == 0
        assert (await operator.stats())["workers"] == []
        async with worker(tmp_path) as two:

            async def told() -> bool:
                return "worker.paused" in two.events()

            await eventually(told)
            assert len(await eventually(workers)) == 1
            await asyncio.sleep(1)
            assert (await service.transaction(created["id"]))["status"] == "pending"
            await operator.data("POST", "/resume")
            await service.settled(created["id"])


async def test_a_worker_fetches_nothing_before_it_knows(administered: Service, operator: Operator) -> None:
    """The pause was there before the worker, and nothing tells of it but the table."""
    await operator.data("POST", "/pause")
    created = await administered.create()
    async with administered.working():
        await reaches(administered, "yardstick_jobs_paused", 1)
        await published(administered, 1)
        await asyncio.sleep(1)
        assert (await administered.transaction(created["id"]))["status"] == "pending"


async def test_a_pause_that_nobody_heard_of_is_seen_by_the_poll(administered: Service) -> None:
    async with administered.working():
        await reaches(administered, "yardstick_jobs_paused", 0)
        async with administered.container.database.unit() as unit:
            await unit.session.execute(
                text("INSERT INTO queue_pause (id, scope, reason) VALUES (1, '*', '')")
            )
        await reaches(administered, "yardstick_jobs_paused", 1)


async def test_what_waits_for_a_resume_is_not_taken_for_lost(
    administered: Service, operator: Operator
) -> None:
    await enqueue(administered)
    long_ago = now() - timedelta(hours=1)
    async with administered.container.database.unit() as unit:
        await unit.session.execute(update(JobRecord).values(published_at=long_ago, due_at=long_ago))

    async def looked(keeping: Keeping) -> list[datetime | None]:
        await keeping.once()
        return [row.published_at for row in await administered.rows(JobRecord)]

    def keeping(republish_seconds: int) -> Keeping:
        settings = administered.container.settings.outbox
        changed = settings.model_copy(update={"republish_seconds": republish_seconds})
        return Keeping(changed, administered.container.database, Metrics(CollectorRegistry(), "test"))

    patient, brief = keeping(900), keeping(0)
    await operator.data("POST", "/pause")
    assert await looked(patient) == await looked(brief) == [long_ago]
    await operator.data("POST", "/resume")
    # It has its turn first: only when its time has passed once more is it taken for lost.
    assert await looked(patient) == [long_ago]
    assert await looked(brief) == [None]
