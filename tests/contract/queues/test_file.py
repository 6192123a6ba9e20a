"""The `file` engine and its file: what it does not start with, what it rides out, what it keeps to itself."""

import asyncio
import os
import shutil
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from service.errors import StartError, UnavailableError
from service.infra.queues import file_jobs, file_schema, file_writer
from service.infra.queues.file import FileQueue
from service.infra.queues.interface import RefusedJobError
from tests.contract.queues.file_broker import FileBroker, open_queue
from tests.contract.queues.harness import Working, drained, eventually, ids, job, numbered, published


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def refused(path: Path, match: str) -> None:
    """The engine does not start, and its one line names the variable, the file and what to do."""
    with pytest.raises(StartError, match=match) as caught:
        open_queue(str(path))
    text = str(caught.value)
    assert text.startswith(f"QUEUE_FILE_PATH: {path}: ")
    assert "\n" not in text


def overwrite(path: Path, at: float, content: bytes) -> None:
    """`at` is a share of the file's length."""
    with path.open("r+b") as file:
        file.seek(int(path.stat().st_size * at))
        file.write(content)


async def answers(queue: FileQueue) -> bool:
    try:
        await queue.ping()
    except UnavailableError:
        return False
    return True


async def silent(queue: FileQueue) -> bool:
    return not await answers(queue)


def test_a_folder_in_place_of_the_file_is_refused(path: Path) -> None:
    path.mkdir()
    refused(path, "is a folder; name a file")


def test_a_folder_that_cannot_be_made_is_refused(path: Path) -> None:
    path.write_text("a file")
    refused(path / "below" / "jobs.db", "choose a place that this user may write to")


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("precious " * 1000)
    refused(path, "is no SQLite database; name another file, or move this one away")
    assert path.read_text() == "precious " * 1000


def test_a_database_of_something_else_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("CREATE TABLE jobs(precious)")
    refused(path, "is a database of something else; name another file")
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT sql FROM sqlite_master").fetchall() == [("CREATE TABLE jobs(precious)",)]


def test_a_file_of_another_version_is_refused(path: Path) -> None:
    open_queue(str(path))
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 99")
    refused(path, "is of version 99")


async def test_a_damaged_file_is_refused_with_the_way_to_save_it(path: Path) -> None:
    queue = open_queue(str(path))
    await published(queue, *numbered(500))
    await queue.close()
    overwrite(path, 0.5, os.urandom(20_000))
    refused(path, r"is damaged .*\.recover")


async def test_a_file_that_is_damaged_while_it_is_used_is_an_outage(path: Path) -> None:
    queue = open_queue(str(path))
    await published(queue, *numbered(500))
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(path, 0.0, bytes(20_000))
    async with Working(queue, concurrency=50) as worker:
        await eventually(lambda: silent(queue))
        await asyncio.sleep(1)
        assert not worker.task.done()
        await worker.stop(1.0)
    await queue.close()


@contextmanager
def unprivileged() -> Iterator[Path]:
    """As a user whom permissions stop, in a folder of their own."""
    folder = Path(tempfile.mkdtemp(prefix="queue-"))
    root = os.geteuid() == 0
    try:
        if root:
            os.chown(folder, 65534, 65534)
            os.seteuid(65534)
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(folder)


def test_a_file_or_folder_that_may_not_be_written_is_refused() -> None:
    with unprivileged() as folder:
        path = folder / "jobs.db"
        open_queue(str(path))
        path.chmod(0o400)
        refused(path, "may not write to the file and its folder; give both to the user")
        path.chmod(0o600)
        folder.chmod(0o500)
        refused(path, "may not write to the file and its folder; give both to the user")
        refused(folder / "other.db", "choose a place that this user may write to")


def test_a_file_system_without_locks_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # SQLite's own way to have no locks, which it takes for a file system that cannot do them.
    monkeypatch.setattr(file_schema, "OPTIONS", "mode=rw&vfs=unix-none")
    refused(path, "no locks or no shared memory for them; put it on a local disk")


async def test_all_files_are_for_their_owner_alone(path: Path) -> None:
    before = os.umask(0)
    try:
        queue = open_queue(str(path))
        await published(queue, job())
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("jobs.db", "jobs.db-wal", "jobs.db-shm", "jobs.db-bell"), 0o600)
    await queue.close()


def test_a_file_that_others_may_read_is_for_its_owner_alone_from_then_on(path: Path) -> None:
    open_queue(str(path))
    path.chmod(0o644)
    open_queue(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_jobs_outlive_the_processes_that_had_the_file_open(file_broker: FileBroker) -> None:
    queue = file_broker.open()
    jobs = numbered(5)
    await published(queue, *jobs)
    await queue.close()
    with pytest.raises(UnavailableError):
        await queue.ping()
    async with Working(file_broker.open()) as worker:
        await worker.ran(5)
    assert worker.order == ids(jobs)


async def test_publishing_is_synced_and_ending_is_not(path: Path) -> None:
    queue = open_queue(str(path))
    levels: list[int] = []

    def note(connection: sqlite3.Connection) -> None:
        levels.append(connection.execute("PRAGMA synchronous").fetchone()[0])

    await queue._writer.write(note)
    await queue._writer.write(note, durable=True)
    await asyncio.gather(*(queue._writer.write(note, durable=durable) for durable in (False, True)))
    await queue._writer.write(note)
    # 1 is NORMAL, 2 is FULL; what is committed together with a synced operation is synced with it.
    assert levels[:2] == [1, 2]
    assert levels[-1] == 1
    await published(queue, job())
    await queue._writer.read(note)
    assert levels[-1] == 2
    await queue.close()


async def test_one_that_fails_spoils_none_that_is_committed_with_it(path: Path) -> None:
    queue = open_queue(str(path))
    rows = [{"job_id": str(number), "priority": 2, "due": 0, "body": b"{}"} for number in range(5)]

    def bad(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO jobs(job_id) VALUES ('no body')")

    def put(row: file_jobs.Row) -> file_writer.Operation[None]:
        return lambda connection: file_jobs.insert(connection, [row])

    answers = await asyncio.gather(
        queue._writer.write(put(rows[0])),
        queue._writer.write(bad),
        *(queue._writer.write(put(row)) for row in rows[1:]),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [type(None), UnavailableError] + [type(None)] * 4
    assert (await queue.stats()).waiting == 5
    await queue.close()


async def test_a_lock_held_too_long_is_an_outage_that_passes(
    file_broker: FileBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_writer, "BUSY_SECONDS", 1.0)
    queue = file_broker.open()
    one, other = job(), job()
    await published(queue, one)
    async with Working(file_broker.open(), gated=True) as worker:
        await worker.has_started(1)
        with closing(sqlite3.connect(file_broker.path, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(UnavailableError, match="locked"):
                await queue.publish([other])
            worker.gate.set()
            await worker.ran(1)
            await asyncio.sleep(2)
            holder.execute("ROLLBACK")
        await published(queue, other)
        await worker.ran(2)
        await drained(queue)
    assert worker.order == ids([one, other])


async def test_a_lock_at_the_start_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_schema, "BUSY_SECONDS", 1.0)
    await open_queue(str(path)).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        queue = open_queue(str(path))
        assert not await answers(queue)
        holder.execute("ROLLBACK")
    assert await answers(queue)
    await queue.close()


async def test_a_file_that_was_replaced_is_noticed(file_broker: FileBroker) -> None:
    queue = file_broker.open()
    await published(queue, *numbered(3))
    fresh = file_broker.folder / "fresh.db"
    await open_queue(str(fresh)).close()
    fresh.rename(file_broker.path)
    for suffix in ("-wal", "-shm"):
        file_broker.path.with_name(f"jobs.db{suffix}").unlink()
    one = job()
    await published(queue, one)
    async with Working(file_broker.open()) as worker:
        await worker.ran(1)
    assert worker.order == [str(one.id)]


async def test_a_disk_that_comes_back_is_used_again(file_broker: FileBroker) -> None:
    queue = file_broker.open()
    one = job()
    await published(queue, one)
    away = file_broker.folder / "unmounted"
    async with Working(queue, gated=True) as worker:
        await worker.has_started(1)
        file_broker.path.parent.rename(away)
        with pytest.raises(UnavailableError):
            await queue.publish([job()])
        worker.gate.set()
        await worker.ran(1)
        away.rename(file_broker.path.parent)
        await eventually(lambda: answers(queue))
        await drained(queue)
    assert worker.order == [str(one.id)]


async def test_a_job_over_the_limit_is_refused_and_the_rest_is_taken(file_broker: FileBroker) -> None:
    queue = file_broker.open(max_bytes=2000)
    jobs = [job(), job(payload={"text": "x" * 2000}), job()]
    answers = await queue.publish(jobs)
    assert [type(answer) for answer in answers] == [type(None), RefusedJobError, type(None)]
    async with Working(queue) as worker:
        await worker.ran(2)
        await drained(queue)
    assert worker.order == ids([jobs[0], jobs[2]])


async def test_a_path_of_odd_characters_is_a_path_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "a folder?mode=memory#50%" / "jobs é.db"
    queue: FileQueue = open_queue(str(path))
    await published(queue, job())
    await queue.close()
    assert path.stat().st_size > 0
