"""The `file` engine between processes: killed at any moment, many at once, waking each other, a full disk."""

import asyncio
import os
import random
import sqlite3
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

from tests.contract.queues.file_broker import FileBroker
from tests.contract.queues.file_process import CONCURRENCY
from tests.contract.queues.harness import ROOT, Working, drained, eventually, ids, job, numbered, published

KILLS = 40


class Processes:
    """Forks on a queue file, and what they wrote down."""

    def __init__(self, nursery: asyncio.subprocess.Process, record: Path) -> None:
        self._nursery, self._record = nursery, record

    async def start(self, kind: str) -> int:
        return await self._ask(kind)

    async def kill(self, pid: int) -> None:
        await self._ask(f"kill {pid}")

    async def _ask(self, line: str) -> int:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(f"{line}\n".encode())
        return int(await self._nursery.stdout.readline())

    def noted(self, word: str) -> list[list[str]]:
        if not self._record.exists():
            return []
        lines = [line.split() for line in self._record.read_text().splitlines()]
        return [line[1:] for line in lines if line[0] == word]


@asynccontextmanager
async def processes(broker: FileBroker, lease: float) -> AsyncIterator[Processes]:
    record = broker.folder / "record"
    nursery = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.contract.queues.file_process", broker.path, str(lease), record,
        stdin=PIPE, stdout=PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        yield Processes(nursery, record)
    finally:
        assert nursery.stdin is not None
        nursery.stdin.close()
        await nursery.wait()


async def test_nothing_is_lost_whenever_publishers_and_workers_are_killed(file_broker: FileBroker) -> None:
    async with processes(file_broker, lease=1.0) as group:
        alive = [(await group.start(kind), kind) for kind in ("publish", "work", "publish", "work")]
        workers_killed = 0
        for _ in range(KILLS):
            await asyncio.sleep(random.uniform(0, 0.15))
            pid, kind = alive.pop(random.randrange(4))
            await group.kill(pid)
            workers_killed += kind == "work"
            alive.append((await group.start(kind), kind))
        for pid, kind in alive:
            await group.kill(pid)
            workers_killed += kind == "work"
    with closing(sqlite3.connect(file_broker.path)) as file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        left, distinct = file.execute("SELECT count(*), count(DISTINCT job_id) FROM jobs").fetchone()
        assert left == distinct
    queue = file_broker.open()
    async with Working(queue, concurrency=50) as rest:
        await drained(queue)
    confirmed = {(job_id, attempts) for job_id, attempts in group.noted("published")}
    runs = [(job_id, attempt, redelivered) for job_id, attempt, redelivered, _ in group.noted("ran")]
    ended = {(job_id, attempt) for job_id, attempt, _ in runs}
    assert {one for one in confirmed - ended if one[0] not in rest.times} == set()
    assert len(confirmed) > KILLS
    assert len(runs) > KILLS
    # A second run of an attempt is owed to a kill, and says so.
    times = Counter((job_id, attempt) for job_id, attempt, _ in runs)
    first = Counter((job_id, attempt) for job_id, attempt, redelivered in runs if redelivered == "0")
    assert max(first.values()) == 1
    assert sum(count - 1 for count in times.values()) <= workers_killed * CONCURRENCY * 2


async def test_many_processes_share_the_jobs_and_each_runs_once(file_broker: FileBroker) -> None:
    queue = file_broker.open()
    jobs = [job(payload={"number": 1}) for _ in range(2000)]
    async with processes(file_broker, lease=60.0) as group:
        workers = {str(await group.start("work")) for _ in range(4)}
        await eventually(lambda: len(group.noted("ready")) == 4)
        for at in range(0, len(jobs), 100):
            await published(queue, *jobs[at : at + 100])
        await drained(queue)
        runs = group.noted("ran")
    assert Counter(run[0] for run in runs) == Counter(ids(jobs))
    assert {run[3] for run in runs} == workers


async def test_a_publisher_wakes_an_idle_worker_of_another_process(file_broker: FileBroker) -> None:
    # Without the bell the job would wait for the next look, far beyond this test's patience.
    async with Working(file_broker.open(poll_seconds=600)) as worker, processes(file_broker, 60.0) as group:
        await asyncio.sleep(1)
        await group.start("publish")
        await worker.ran(100)


async def test_a_busy_worker_leaves_the_bell_to_an_idle_one(file_broker: FileBroker) -> None:
    busy, idle = file_broker.open(poll_seconds=600), file_broker.open(poll_seconds=600)
    await published(busy, job())
    async with Working(busy, gated=True) as holding:
        await holding.has_started(1)
        await asyncio.sleep(1)
        pipe = os.open(f"{file_broker.path}-bell", os.O_RDWR | os.O_NONBLOCK)
        with suppress(BlockingIOError):
            os.read(pipe, 1000)
        await published(file_broker.open(), job())
        await asyncio.sleep(1)
        assert os.read(pipe, 1000) == b"!"
        os.close(pipe)
        async with Working(idle) as worker:
            for number in range(20):
                await published(file_broker.open(), job())
                await worker.ran(number + 2)
        assert len(holding.started) == 1
        holding.gate.set()


async def test_without_a_bell_the_file_is_looked_at(file_broker: FileBroker) -> None:
    file_broker.path.parent.mkdir()
    file_broker.path.with_name("jobs.db-bell").write_text("no pipe")
    jobs = numbered(3)
    async with Working(file_broker.open()) as worker:
        await asyncio.sleep(1)
        for one in jobs:
            await published(file_broker.open(), one)
        await worker.ran(3)
    assert worker.order == ids(jobs)


async def test_a_full_disk_refuses_and_loses_nothing(file_broker: FileBroker) -> None:
    async with processes(file_broker, lease=60.0) as group:
        await group.start("fill")
        await eventually(lambda: group.noted("closed"))
        assert len(group.noted("refused")) == 1
        confirmed = [job_id for job_id, _ in group.noted("published")]
    # The last 20 were taken after the disk had room again.
    assert len(confirmed) >= 40
    queue = file_broker.open()
    async with Working(queue, concurrency=20) as worker:
        await drained(queue)
    assert set(confirmed) <= set(worker.order)
    assert max(worker.times.values()) == 1
