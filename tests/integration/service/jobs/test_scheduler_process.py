"""The scheduler as a real process: started, stopped, killed half-way, refused, and away from its database."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest

from service.jobs import SCHEDULES
from service.settings import Settings
from tests.integration.service.harness import eventually
from tests.integration.service.launched import Process

Configure = Callable[..., Settings]
Start = Callable[[], Process]
CLEANUP = "maintenance.cleanup"


@pytest.fixture
def start(configure: Configure, tmp_path: Path) -> Iterator[Start]:
    """Starts a scheduler on this test's database; what is left at the end is killed."""
    configure(
        TELEMETRY_LOG_SINK="stdout",
        APP_DRAIN_SECONDS=15,
        DATABASE_STATEMENT_TIMEOUT_MS=60_000,
        SCHEDULER_POLL_SECONDS=0.1,
    )
    started: list[Process] = []

    def launch() -> Process:
        started.append(Process("service.scheduler", tmp_path))
        return started[-1]

    yield launch
    for process in started:
        process.end()


class Tables:
    """The test's own look at the database."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.connection = connection

    async def scheduled(self) -> bool:
        """Whether a scheduler has written down every schedule of the code."""
        return bool(await self.connection.fetchval("SELECT count(*) FROM schedule") == len(SCHEDULES))

    async def jobs(self, name: str = f"{CLEANUP}.v1") -> int:
        found: int = await self.connection.fetchval("SELECT count(*) FROM job WHERE name = $1", name)
        return found

    async def miss(self, days: int) -> None:
        """Nobody was there for the nightly cleanup of so many days."""
        await self.connection.execute(
            "UPDATE schedule SET next_due = next_due - make_interval(days => $1) WHERE name = $2",
            days,
            CLEANUP,
        )

    async def waiting(self) -> bool:
        """Whether somebody waits for a lock, with its own transaction open."""
        waiting = "wait_event_type = 'Lock' AND datname = current_database()"
        query = f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}"  # noqa: S608 - no input in it
        return bool(await self.connection.fetchval(query))


@pytest.fixture
async def tables(database_url: str) -> AsyncIterator[Tables]:
    connection = await asyncpg.connect(database_url)
    yield Tables(connection)
    await connection.close()


@asynccontextmanager
async def jobs_locked(url: str) -> AsyncIterator[None]:
    """Nobody gets to write jobs inside the block."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE job IN EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def metrics(process: Process) -> str:
    async with httpx.AsyncClient() as http:
        return (await http.get(f"{process.url}/metrics")).text


async def test_it_starts_fires_and_stops(start: Start, tables: Tables) -> None:
    scheduler = start()
    await scheduler.up()
    await eventually(tables.scheduled)
    text = await metrics(scheduler)
    for one in SCHEDULES:
        assert f'yardstick_schedule_firings_total{{schedule="{one.name}"}}' in text
        assert f'yardstick_schedule_missed_total{{policy="{one.missed}",schedule="{one.name}"}}' in text
    await tables.miss(3)

    async def fired() -> bool:
        return f'yardstick_schedule_firings_total{{schedule="{CLEANUP}"}} 1.0' in await metrics(scheduler)

    await eventually(fired)
    assert await tables.jobs() == 1
    async with httpx.AsyncClient() as http:
        assert (await http.get(f"{scheduler.url}/v1/transactions")).status_code == 404
        assert (await http.get(f"{scheduler.url}/health")).status_code == 200
    scheduler.popen.terminate()
    assert await scheduler.ended() == 0
    events = scheduler.events()
    assert {"process.opened", "schedules.reconciled", "schedule.missed", "schedule.fired"} <= set(events)
    assert events[-1] == "process.closing"
    assert "Traceback" not in scheduler.log.read_text()


async def test_three_processes_fire_once(start: Start, tables: Tables) -> None:
    crew = [start() for _ in range(3)]
    await asyncio.gather(*(one.up() for one in crew))
    await eventually(tables.scheduled)
    for days in range(1, 6):
        await tables.connection.execute("DELETE FROM job")
        await tables.miss(days)
        await eventually(tables.jobs)
    assert await tables.jobs() == 1
    for one in crew:
        one.popen.terminate()
    assert [await one.ended() for one in crew] == [0, 0, 0]
    assert sum(one.events().count("schedule.missed") for one in crew) == 5


async def test_one_killed_in_the_middle_of_a_firing_is_followed_by_another(
    start: Start, tables: Tables, database_url: str
) -> None:
    first = start()
    await first.up()
    await eventually(tables.scheduled)
    async with jobs_locked(database_url):
        await tables.miss(3)
        await eventually(tables.waiting)
        first.popen.kill()
        assert await first.ended() == -signal.SIGKILL
        second = start()
        await second.up()
    await eventually(tables.jobs)
    second.popen.terminate()
    assert await second.ended() == 0
    assert await tables.jobs() == 1
    assert second.events().count("schedule.fired") <= 1  # the server may have finished what the first began


async def test_sigterm_finishes_the_firing_in_hand(start: Start, tables: Tables, database_url: str) -> None:
    scheduler = start()
    await scheduler.up()
    await eventually(tables.scheduled)
    async with jobs_locked(database_url):
        await tables.miss(3)
        await eventually(tables.waiting)
        scheduler.popen.terminate()

        async def draining() -> bool:
            async with httpx.AsyncClient() as http:
                return (await http.get(f"{scheduler.url}/health/ready")).status_code == 503

        await eventually(draining)
        assert scheduler.popen.poll() is None
    assert await scheduler.ended() == 0
    assert await tables.jobs() == 1
    assert "schedule.fired" in scheduler.events()


async def test_an_outage_of_the_database_is_waited_out(start: Start, tables: Tables) -> None:
    scheduler = start()
    await scheduler.up()
    await eventually(tables.scheduled)
    for _ in range(3):
        await tables.connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    await tables.miss(2)
    await eventually(tables.jobs)
    scheduler.popen.terminate()
    assert await scheduler.ended() == 0


async def test_a_taken_port_is_one_line_and_exit_code_1(start: Start, tmp_path: Path) -> None:
    first = start()
    await first.up()
    port = first.url.rpartition(":")[2]
    second = Process("service.scheduler", tmp_path, port=int(port))
    try:
        assert await second.ended() == 1
    finally:
        second.end()
    assert second.log.read_text() == f"cannot listen on 127.0.0.1:{port}: Address already in use\n"
