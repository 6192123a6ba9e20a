"""Each firing is one job, however many schedulers run, whatever was missed, and whoever dies on the way."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from prometheus_client import CollectorRegistry
from pydantic import AwareDatetime, BaseModel
from sqlalchemy import text, update

from observability import Metrics
from service.db.jobs.record import JobRecord
from service.db.jobs.schedules import Missed, Schedule, ScheduleRecord, Schedules
from service.db.jobs.timing import Cron, Every, Timing
from service.db.session import Database
from service.infra.queues.interface import JobKind
from service.scheduler import Scheduler, SchedulerMetrics
from service.settings import Settings
from tests.integration.service.harness import Service, eventually

Configure = Callable[..., Settings]


class At(BaseModel):
    """The time of the firing, for the tests to read."""

    at: AwareDatetime


TICK = JobKind("maintenance.tick.v1", At)


def tick(
    name: str = "tick",
    timing: Timing | None = None,
    missed: Missed = "skip",
    grace: float = 60.0,
    most: int = 100,
) -> Schedule[At]:
    return Schedule(name, timing or Every(3600), TICK, lambda at: At(at=at), missed, grace, most)


def schedules(service: Service, *found: Schedule[At]) -> Schedules:
    return Schedules(found, service.container.database, service.container.outbox)


async def fire_all(one: Schedules) -> None:
    while await one.fire():
        pass


async def back(service: Service, **interval: float) -> datetime:
    """Have every schedule wait for a time in the past; gives the database's time."""
    async with service.container.database.unit() as unit:
        now: datetime | None = await unit.session.scalar(text("SELECT now()"))
        assert now is not None
        await unit.session.execute(update(ScheduleRecord).values(next_due=now - timedelta(**interval)))
        return now


async def firings(service: Service) -> dict[str, list[datetime]]:
    """The times for which jobs were enqueued, by the source that the payload's kind names."""
    found: dict[str, list[datetime]] = {}
    for row in await service.rows(JobRecord):
        assert row.payload is not None
        found.setdefault(row.name or "", []).append(datetime.fromisoformat(row.payload["at"]))
    return {name: sorted(times) for name, times in found.items()}


async def ticks(service: Service) -> list[datetime]:
    return (await firings(service)).get(TICK.name, [])


async def record(service: Service, name: str = "tick") -> ScheduleRecord:
    [found] = [row for row in await service.rows(ScheduleRecord) if row.name == name]
    assert isinstance(found, ScheduleRecord)
    return found


class Crew:
    """Schedulers side by side, each with connections and metrics of its own, as if processes of their own."""

    def __init__(self, service: Service, settings: Settings, found: list[Schedule[At]], size: int) -> None:
        self.registries = [CollectorRegistry() for _ in range(size)]
        metrics = [Metrics(registry, "test") for registry in self.registries]
        self.databases = [
            Database(settings.database, application=f"scheduler-{number}", metrics=each)
            for number, each in enumerate(metrics)
        ]
        self.schedulers = [
            Scheduler(
                Schedules(found, database, service.container.outbox), SchedulerMetrics(found, each), poll=5
            )
            for database, each in zip(self.databases, metrics, strict=True)
        ]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(one.run()) for one in self.schedulers]
        try:
            yield
        finally:
            for one in self.schedulers:
                one.stop()
            await asyncio.gather(*tasks)
            for database in self.databases:
                await database.close()

    def counted(self, name: str) -> float:
        values = [
            registry.get_sample_value("test_schedule_firings_total", {"schedule": name})
            for registry in self.registries
        ]
        return sum(value or 0 for value in values)


async def test_three_schedulers_fire_each_firing_once(service: Service, configure: Configure) -> None:
    kinds = [JobKind(f"maintenance.tick_{number}.v1", At) for number in range(10)]
    found = [Schedule(kind.name, Every(1), kind, lambda at: At(at=at), "catch_up", 60.0) for kind in kinds]
    crew = Crew(service, configure(), found, 3)

    async def enough() -> bool:
        times = await firings(service)
        return len(times) == 10 and min(len(each) for each in times.values()) >= 6

    async with crew.running():
        await eventually(enough, within=60)
    times = await firings(service)
    for name, each in times.items():
        assert {later - earlier for earlier, later in pairwise(each)} == {timedelta(seconds=1)}, name
        # A firing that two of them counted was enqueued by two of them.
        assert crew.counted(name) == len(each)
    rows = await service.rows(ScheduleRecord)
    assert {row.name: row.last_fired for row in rows} == {name: each[-1] for name, each in times.items()}


async def test_many_at_the_same_moment_fire_each_schedule_once(service: Service) -> None:
    found = [tick(f"tick-{number}", missed="once") for number in range(5)]
    crew = [schedules(service, *found) for _ in range(8)]
    await crew[0].reconcile()
    for _ in range(5):
        await back(service, hours=2)
        answers = await asyncio.gather(*(one.fire() for one in crew for _ in found))
        fired = Counter(answer.schedule for answer in answers if answer)
        assert fired == {one.name: 1 for one in found}


async def test_a_firing_for_which_the_row_is_set_back_is_the_same_job(service: Service) -> None:
    one = schedules(service, tick(missed="catch_up"))
    await one.reconcile()
    await back(service, hours=3, seconds=1)
    await fire_all(one)
    first = {row.job_id for row in await service.rows(JobRecord)}
    assert len(first) in {3, 4}
    await back(service, hours=3, seconds=1)
    await fire_all(one)
    assert {row.job_id for row in await service.rows(JobRecord)} >= first
    assert len(await ticks(service)) == len(set(await ticks(service)))


@pytest.mark.parametrize("missed", ["catch_up", "once", "skip"])
async def test_what_becomes_of_missed_firings_is_as_declared(service: Service, missed: Missed) -> None:
    one = schedules(service, tick(timing=Cron("0 0 * * *"), missed=missed, grace=0.000_001))
    await one.reconcile()
    now = await back(service, days=5)
    fired = await one.fire()
    assert fired is not None
    assert fired.missed == 5
    newest = now.replace(hour=0, minute=0, second=0, microsecond=0)
    days = [newest - timedelta(days=day) for day in (4, 3, 2, 1, 0)]
    expected = {"catch_up": days, "once": days[-1:], "skip": []}[missed]
    assert await ticks(service) == fired.enqueued == expected
    row = await record(service)
    assert row.next_due == newest + timedelta(days=1)
    assert row.last_fired == (expected[-1] if expected else None)
    assert await one.fire() is None


async def test_a_long_outage_is_caught_up_within_bounds(service: Service) -> None:
    one = schedules(service, tick(timing=Every(1), missed="catch_up", most=20))
    await one.reconcile()
    await back(service, days=400)
    fired = await one.fire()
    assert fired is not None
    assert len(fired.enqueued) == 20
    assert await ticks(service) == fired.enqueued
    assert {later - earlier for earlier, later in pairwise(fired.enqueued)} == {timedelta(seconds=1)}
    assert datetime.now(UTC) - fired.enqueued[-1] < timedelta(minutes=1)


@pytest.mark.parametrize(("missed", "expected"), [("catch_up", [1, 2, 3, 4]), ("once", [4]), ("skip", [4])])
def test_one_on_time_does_what_the_missed_ones_should_have(missed: Missed, expected: list[int]) -> None:
    now = datetime(2026, 1, 1, 4, 0, 59, tzinfo=UTC)
    due = [datetime(2026, 1, 1, hour, tzinfo=UTC) for hour in (1, 2, 3, 4)]
    assert tick(missed=missed).chosen(due, now) == ([due[hour - 1] for hour in expected], 3)


async def test_rows_follow_the_code(service: Service) -> None:
    await schedules(service, tick("stays"), tick("goes"), tick("changes")).reconcile()
    before = {row.name: row for row in await service.rows(ScheduleRecord)}
    changed = tick("changes", Cron("0 0 1 1 *"), missed="once")
    newer = schedules(service, tick("stays", missed="catch_up"), changed, tick("comes"))
    await asyncio.gather(*(newer.reconcile() for _ in range(5)))
    after = {row.name: row for row in await service.rows(ScheduleRecord)}
    assert set(after) == {"stays", "changes", "comes"}
    assert after["stays"].next_due == before["stays"].next_due
    assert after["stays"].policy == "catch_up"
    assert (after["changes"].timing, after["changes"].policy) == ("0 0 1 1 * UTC", "once")
    following = after["changes"].next_due
    assert (following.month, following.day, following.hour) == (1, 1, 0)


async def test_a_start_makes_no_missed_firing_forgotten(service: Service) -> None:
    one = schedules(service, tick(missed="once"))
    await one.reconcile()
    await back(service, hours=2)
    await one.reconcile()
    assert await one.fire() is not None


async def test_a_schedule_that_waits_for_a_wrong_clock_is_timed_anew(service: Service) -> None:
    one = schedules(service, tick())
    await one.reconcile()
    right = (await record(service)).next_due
    await back(service, days=-365)
    await one.reconcile()
    assert right <= (await record(service)).next_due <= right + timedelta(hours=1)


async def test_older_code_leaves_what_newer_code_has_timed(service: Service) -> None:
    older = schedules(service, tick(timing=Every(60), missed="once"))
    await older.reconcile()
    newer = schedules(service, tick(timing=Every(3600), missed="once"))
    await newer.reconcile()
    await back(service, hours=2)
    assert await older.fire() is None
    assert await newer.fire() is not None


async def test_a_firing_that_fails_half_way_is_none(service: Service) -> None:
    broken = Schedule("tick", Every(3600), TICK, lambda at: At(at=at.replace(tzinfo=None)), "once")
    one = schedules(service, broken)
    await one.reconcile()
    await back(service, hours=2)
    due = (await record(service)).next_due
    with pytest.raises(ValueError, match="timezone"):
        await one.fire()
    assert (await record(service)).next_due == due
    assert await service.count(JobRecord) == 0


async def test_the_gauges_tell_how_late_a_schedule_is_and_when_it_fired(service: Service) -> None:
    one = schedules(service, tick(missed="once"))
    registry = CollectorRegistry()
    metrics = SchedulerMetrics([tick(missed="once")], Metrics(registry, "test"))
    scheduler = Scheduler(one, metrics, poll=5)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"test_schedule_{name}", {"schedule": "tick", **labels})

    await one.reconcile()
    await back(service, hours=3)
    for standing in await one.standings():
        metrics.stand(standing)
    late = value("due_seconds")
    assert late is not None
    assert 3 * 3600 <= late < 3 * 3600 + 60
    assert value("last_firing_timestamp_seconds") == 0
    assert 0 < await scheduler.turn() <= 5
    [at] = await ticks(service)
    assert value("due_seconds") == 0
    assert value("last_firing_timestamp_seconds") == at.timestamp()
    assert value("firings_total") == 1
    assert value("missed_total", policy="once") in {2.0, 3.0}


def test_two_schedules_of_one_name_are_refused(service: Service) -> None:
    with pytest.raises(ValueError, match="same name"):
        schedules(service, tick(), tick())


@pytest.mark.parametrize(
    ("name", "grace", "most"), [("", 60, 100), ("x" * 101, 60, 100), ("x", 0, 1), ("x", 1, 0)]
)
def test_what_is_no_schedule_is_refused(name: str, grace: float, most: int) -> None:
    with pytest.raises(ValueError, match="is no schedule"):
        tick(name, grace=grace, most=most)
