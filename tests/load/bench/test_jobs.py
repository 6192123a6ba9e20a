"""Does the benchmark count right? Tiny runs of real processes, some of them broken on purpose."""

import asyncio
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
import redis

from bench.jobs import outbox
from bench.jobs.cell import Plan, Turn, VoidError, drain, waits
from bench.jobs.contender import Work
from bench.jobs.figures import MEASURES
from bench.jobs.run import execute, measure
from bench.jobs.table import ENTRIES, Entry, lacking

PLAN = Plan(jobs=40, rate=50, seconds=0.5, warm_up=3, concurrency=10, settle=1.5, patience=4)


def turn(name: str, redis_url: str, folder: Path, plan: Plan = PLAN) -> Turn:
    with redis.Redis.from_url(redis_url) as client:
        client.delete(f"bench-{folder.name}")
    return Turn(Entry(name, f"tests.load.bench.contenders:{name}", (), ""), redis_url, plan, folder)


def test_a_turn_of_a_queue_that_works_gives_every_figure(redis_url: str, tmp_path: Path) -> None:
    cell = measure(1, turn("honest", redis_url, tmp_path / "honest"))
    assert not cell.void
    assert set(MEASURES) <= set(cell.values)
    assert all(value > 0 for name, value in cell.values.items() if name != "late_p99")
    assert cell.values["wait_p50"] <= cell.values["wait_p99"]


@pytest.mark.parametrize(
    ("name", "work", "why"),
    [
        ("forgets", "noop", r"1 of 40 jobs never ran \(the first of them: 7\)"),
        ("loses", "noop", r"1 of 40 jobs never ran \(the first of them: 7\)"),
        ("dies", "noop", "the worker ended with 3"),
        ("doubles", "noop", r"1 of 40 jobs ran more than once \(41 runs in all\)"),
        ("doubles_late", "noop", r"1 of 40 jobs ran more than once \(41 runs in all\)"),
        ("invents", "noop", "1 jobs ran that nobody enqueued"),
        ("cuts_off", "io", "1 of 40 jobs began and did not end"),
        ("refuses", "noop", "what enqueues ended with 1: ConnectionError: the broker does not take it"),
    ],
)
def test_a_turn_is_void_unless_each_job_ran_once(
    name: str, work: Work, why: str, redis_url: str, tmp_path: Path
) -> None:
    with pytest.raises(VoidError, match=why):
        drain(turn(name, redis_url, tmp_path / name), work)


@pytest.mark.parametrize("name", ["loses", "doubles_late", "dies"])
def test_waits_too_are_void_unless_each_job_ran_once(name: str, redis_url: str, tmp_path: Path) -> None:
    with pytest.raises(VoidError, match=r"1 of 28 jobs|the worker ended with 3"):
        waits(turn(name, redis_url, tmp_path / name))


def test_a_worker_that_never_takes_a_job_is_not_waited_for_for_ever(redis_url: str, tmp_path: Path) -> None:
    hasty = Plan(jobs=10, rate=50, seconds=0.2, warm_up=8, settle=0.1, patience=2)
    with pytest.raises(VoidError, match="what enqueues was not done after 4 s"):
        waits(turn("loses", redis_url, tmp_path / "warm-up", hasty))


def test_a_contender_that_fails_spoils_no_figure_of_another(redis_url: str, tmp_path: Path) -> None:
    cell = measure(1, turn("cuts_off", redis_url, tmp_path / "cuts"))
    assert set(cell.void) == {"io"}
    assert {"noop", "enqueue", "wait_p99"} <= set(cell.values)
    assert "io" not in cell.values


@pytest.fixture(scope="module")
def database(postgres_url: str) -> str:
    """URL of a database with the service's schema."""

    async def create() -> None:
        connection = await asyncpg.connect(postgres_url)
        await connection.execute("CREATE DATABASE bench")
        await connection.close()

    asyncio.run(create())
    url = f"{postgres_url.rpartition('/')[0]}/bench"
    outbox.prepare(url)
    return url


def test_a_job_of_an_outbox_has_to_end_in_the_database_too(
    redis_url: str, database: str, tmp_path: Path
) -> None:
    past_it = replace(turn("honest", redis_url, tmp_path / "past"), database=database)
    with pytest.raises(VoidError, match="40 of 40 jobs ran and have not ended in the database"):
        drain(past_it, "noop")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_contender_runs_each_job_once(entry: Entry) -> None:
    lack = lacking(entry)
    if lack:
        pytest.skip(lack)
    # Plain arq gets fewer, and more than it polls at once.
    plan = Plan(jobs=300, rate=50, seconds=1, concurrency=100, settle=1.5, patience=30)
    result = execute([entry], rounds=1, plan=plan, told=lambda _cell: None)
    assert not result.void
    (row,) = result.rows
    assert set(row.measures) == set(MEASURES)
    assert set(result.versions[entry.name]) == set(entry.packages)
    assert result.document()["cells"][0]["contender"] == entry.name
