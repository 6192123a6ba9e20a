"""New work is refused while too much waits, and taken again once enough of it is done."""

from collections.abc import Callable
from datetime import timedelta
from math import isnan
from uuid import uuid4

import httpx
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import update

from observability import Metrics
from service.db.jobs.outbox import Outbox
from service.db.jobs.presence import Capacity
from service.db.jobs.pressure import Pressure, Reading
from service.db.jobs.record import JobRecord
from service.db.session import Database
from service.errors import OverloadedError
from service.features.transactions.models import Transaction
from service.features.transactions.settlement import SETTLEMENT, SettlementPayload
from service.settings import Settings
from tests.integration.service.harness import BODY, Service, eventually, running
from tests.integration.service.jobs.admin import TOKEN, Operator, enqueue, now

Configure = Callable[..., Settings]
REFUSED = ("yardstick_jobs_refused_total", {"job_name": SETTLEMENT.name})


async def refusing(service: Service, value: bool) -> None:
    async def look() -> bool:
        return service.metric("yardstick_jobs_refusing") == value

    await eventually(look)


async def post(service: Service) -> httpx.Response:
    return await service.http.post("/v1/transactions", json=BODY)


async def test_past_its_depth_the_api_refuses_and_what_is_drained_lets_it_in(configure: Configure) -> None:
    async with running(configure(QUEUE_MAX_DEPTH=5, QUEUE_ADMIN_TOKEN=TOKEN)) as service:
        for _ in range(6):
            await service.create()
        await refusing(service, True)
        before = await service.count(Transaction)
        answer = await post(service)
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "overloaded"
        assert 1 <= int(answer.headers["retry-after"]) <= 300
        assert await service.count(Transaction) == before
        assert service.metric(*REFUSED) == 1
        assert (await service.http.get("/v1/transactions")).status_code == 200
        pressure = (await Operator(service.http).stats())["pressure"]
        assert (pressure["refusing"], pressure["depth"], pressure["maxDepth"]) == (True, 6, 5)
        assert service.metric("yardstick_jobs_backlog") == 6
        async with service.working():
            await refusing(service, False)
            await service.create()


async def test_past_its_age_the_api_refuses_and_not_while_it_is_paused(configure: Configure) -> None:
    async with running(configure(QUEUE_MAX_AGE_SECONDS=60, QUEUE_ADMIN_TOKEN=TOKEN)) as service:
        await enqueue(service)
        async with service.container.database.unit() as unit:
            then = now() - timedelta(seconds=90)
            await unit.session.execute(update(JobRecord).values(due_at=then, created_at=then))
        await refusing(service, True)
        assert (await post(service)).json()["error"]["code"] == "overloaded"
        operator = Operator(service.http)
        await operator.data("POST", "/pause")
        await refusing(service, False)
        await service.create()
        await operator.data("POST", "/resume")
        await refusing(service, True)


async def test_jobs_that_are_not_due_do_not_count(configure: Configure) -> None:
    async with running(configure(QUEUE_MAX_DEPTH=5)) as service:
        await enqueue(service, 50, delay=600)
        assert service.container.pressure is not None
        assert (await service.container.pressure.measure()).depth == 0


async def test_what_jobs_and_schedules_enqueue_is_never_refused(configure: Configure) -> None:
    async with running(configure(QUEUE_MAX_DEPTH=1)) as service:
        await enqueue(service, 3)
        await refusing(service, True)
        with pytest.raises(OverloadedError):
            await enqueue(service)
        inner = Outbox(service.container.jobs, source="worker")
        async with service.container.database.unit() as unit:
            await inner.add(unit, SETTLEMENT, SettlementPayload(transaction_id=uuid4()))
        assert await service.count(JobRecord) == 4


async def test_limits_of_zero_are_none(configure: Configure) -> None:
    pressure = made(configure(QUEUE_MAX_DEPTH=0, QUEUE_MAX_AGE_SECONDS=0))
    pressure.judge(reading(10**9, 10**9))
    pressure.admit("a.b.v1", 1)


async def test_while_the_database_was_never_there_nothing_is_known_and_nothing_refused(
    configure: Configure,
) -> None:
    async with running(configure(DATABASE_URL="postgresql://nobody:none@127.0.0.1:1/none")) as service:

        async def look() -> bool:
            value = service.metric("yardstick_jobs_backlog")
            return value is not None and isnan(value)

        await eventually(look)
        assert service.metric("yardstick_jobs_refusing") == 0
        assert (await post(service)).json()["error"]["code"] == "unavailable"


def made(settings: Settings) -> Pressure:
    metrics = Metrics(CollectorRegistry(), "test")
    return Pressure(settings.queue, Database(settings.database, application="test", metrics=metrics), metrics)


def reading(depth: int, age: float = 0, rate: float = 0) -> Reading:
    return Reading(depth, age, Capacity(1, 20, 20, rate), paused=False)


def waits(pressure: Pressure, *at: Reading) -> list[str | None]:
    """The Retry-After after each reading; None when it lets work in."""
    found: list[str | None] = []
    for one in at:
        pressure.judge(one)
        try:
            pressure.admit("a.b.v1", 1)
            found.append(None)
        except OverloadedError as error:
            found.append(error.headers["Retry-After"])
    return found


async def test_it_does_not_flap_about_its_limits(configure: Configure) -> None:
    pressure = made(configure(QUEUE_MAX_DEPTH=100, QUEUE_MAX_AGE_SECONDS=100))
    depths = waits(pressure, *(reading(depth) for depth in (100, 101, 100, 81, 80, 100, 101)))
    assert [found is not None for found in depths] == [False, True, True, True, False, False, True]
    pressure.judge(reading(0))
    ages = waits(pressure, *(reading(1, age) for age in (100, 101, 100, 81, 80, 100)))
    assert [found is not None for found in ages] == [False, True, True, True, False, False]


async def test_the_wait_is_what_the_drain_takes(configure: Configure) -> None:
    pressure = made(configure(QUEUE_MAX_DEPTH=1000, QUEUE_MAX_AGE_SECONDS=100))
    assert waits(pressure, reading(1800, rate=50)) == ["20"]
    assert waits(pressure, reading(1800)) == ["10"]  # nobody knows
    assert waits(pressure, reading(1001, rate=10_000)) == ["1"]
    assert waits(pressure, reading(10**9, rate=1)) == ["300"]
    # A fifth of these jobs, which came over 100 s, has to go for the oldest to be of 80 s.
    assert waits(pressure, reading(500, 100, rate=10)) == ["10"]
