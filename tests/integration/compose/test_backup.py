"""Backup and restore between real stacks, and what ends a restore in its middle."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from compose.backup.archive import Archive
from compose.backup.processes import Processes
from compose.backup.restore import REPLACED, STAGING, restore
from compose.backup.take import take
from compose.model import StackError
from compose.native import Stack
from tests.integration.compose.backups import (
    BALLAST,
    command,
    content,
    databases,
    fill,
    finished,
    rewritten,
    sql,
    until,
)

STORES = ("postgres", "redis", "migrate")


def quiet(_: str) -> None:
    """Where nobody listens to the progress."""


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A migrated database without the service around it."""
    with Stack(tmp_path_factory.mktemp("one"), only=STORES) as stack:
        yield stack


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Another one."""
    with Stack(tmp_path_factory.mktemp("two"), only=STORES) as stack:
        yield stack


@pytest.fixture(scope="module")
def large(one: Stack, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup that takes seconds to restore; its rows are marked `new`."""
    fill(one, "new", BALLAST)
    path, _ = take(Processes(one), tmp_path_factory.mktemp("large"), quiet)
    return path


@pytest.fixture
def old(two: Stack) -> Iterator[tuple[int, str]]:
    """Data that is there before a restore: the content of the table `ballast`, marked `old`."""
    fill(two, "old")
    yield content(two, "ballast")
    sql(two, "DROP TABLE IF EXISTS ballast")


def test_what_is_restored_is_what_was_there(one: Stack, two: Stack, tmp_path: Path) -> None:
    fill(one, 'a|b\\c\n"é" \t', 500)
    before = content(one, "ballast")
    path, manifest = take(Processes(one), tmp_path / "kept", quiet)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert manifest.tables["public.ballast"].rows == 500
    assert manifest.revision == "0005"
    sql(one, "UPDATE ballast SET mark = 'later' WHERE id = 7")
    said: list[str] = []
    restore(Processes(two), Archive.of(path), said.append)
    assert content(two, "ballast") == before
    assert "counts and hashes are those of the manifest" in said[-1]
    assert databases(two) == {"yardstick"}
    # The hash is of the content: one changed value is another one.
    (tmp_path / "again").mkdir()
    _, changed = take(Processes(one), tmp_path / "again", quiet)
    assert changed.tables["public.ballast"].sha256 != manifest.tables["public.ballast"].sha256
    sql(two, "DROP TABLE ballast")


def test_what_is_counted_is_what_was_dumped_however_much_is_written_meanwhile(
    one: Stack, two: Stack, tmp_path: Path
) -> None:
    fill(one, "start", 2000)
    stop, counter = threading.Event(), 2000

    def write() -> None:
        nonlocal counter
        while not stop.is_set():
            counter += 1
            sql(one, "INSERT INTO ballast VALUES ($1, 'during', now(), '')", counter)
            sql(one, "UPDATE ballast SET mark = 'changed' WHERE id = $1", counter - 2000)

    writer = threading.Thread(target=write)
    writer.start()

    def at_each_step(_: str) -> None:
        # Between the snapshot, the dump and the counting there must have been writes.
        now = counter
        until(lambda: counter > now + 3, "writes go on")

    try:
        path, manifest = take(Processes(one), tmp_path, at_each_step)
    finally:
        stop.set()
        writer.join()
    assert 2000 <= manifest.tables["public.ballast"].rows < counter
    restore(Processes(two), Archive.of(path), quiet)
    assert content(two, "ballast")[0] == manifest.tables["public.ballast"].rows
    sql(two, "DROP TABLE ballast")


@pytest.mark.usefixtures("old")
def test_data_that_is_there_is_not_taken_away_unasked(two: Stack, large: Path, old: tuple[int, str]) -> None:
    code, said = finished(command(two, "restore", str(large)))
    assert code == 1
    assert "50 rows of ballast" in said
    assert "--yes" in said
    assert content(two, "ballast") == old
    code, said = finished(command(two, "restore", str(large), "--yes"))
    assert (code, "The backup is restored." in said) == (0, True), said
    assert {row["mark"] for row in sql(two, "SELECT DISTINCT mark FROM ballast")} == {"new"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_restore_that_is_ended_in_its_middle_leaves_the_old_data(
    two: Stack, large: Path, old: tuple[int, str], number: signal.Signals
) -> None:
    running = command(two, "restore", str(large), "--yes")
    until(lambda: STAGING in databases(two), "the new database is there")
    os.killpg(running.pid, number)
    code, said = finished(running)
    assert code == (-signal.SIGKILL if number is signal.SIGKILL else 130), said
    assert content(two, "ballast") == old
    if number is not signal.SIGKILL:
        assert databases(two) == {"yardstick"}
    # What was left behind is in nobody's way.
    code, said = finished(command(two, "restore", str(large), "--yes"))
    assert code == 0, said
    assert databases(two) == {"yardstick"}
    assert content(two, "ballast")[0] == BALLAST


def test_a_restore_goes_through_clients_that_come_back(two: Stack, large: Path, old: tuple[int, str]) -> None:
    stop = threading.Event()

    def insist() -> None:
        while not stop.is_set():
            try:
                sql(two, "SELECT pg_sleep(100)")
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                continue

    clients = [threading.Thread(target=insist) for _ in range(3)]
    for client in clients:
        client.start()
    try:
        restore(Processes(two), Archive.of(large), quiet, force=True)
    finally:
        stop.set()
        while any(client.is_alive() for client in clients):
            sql(two, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%sleep(100)'")
            clients[0].join(0.2)
    assert content(two, "ballast")[0] == BALLAST
    assert databases(two) == {"yardstick"}


def test_content_that_is_not_the_manifests_does_not_replace_anything(
    two: Stack, large: Path, old: tuple[int, str], tmp_path: Path
) -> None:
    other = rewritten(
        large, tmp_path / "other.zip", lambda m: m["tables"]["public.ballast"].update(sha256="0" * 64)
    )
    with pytest.raises(StackError, match=r"data is as before\. public\.ballast has other content"):
        restore(Processes(two), Archive.of(other), quiet, force=True)
    fewer = rewritten(large, tmp_path / "fewer.zip", lambda m: m["tables"]["public.ballast"].update(rows=7))
    with pytest.raises(StackError, match=rf"has {BALLAST} rows instead of 7"):
        restore(Processes(two), Archive.of(fewer), quiet, force=True)
    assert content(two, "ballast") == old
    assert databases(two) == {"yardstick"}


def test_an_older_schema_is_migrated_and_a_newer_one_refused(one: Stack, two: Stack, tmp_path: Path) -> None:
    fill(one, "older", 10)
    own = {**os.environ, **one.environment("migrate")}
    subprocess.run([sys.executable, "-m", "service.db", "downgrade", "0004"], env=own, check=True)
    try:
        path, manifest = take(Processes(one), tmp_path, quiet)
    finally:
        subprocess.run([sys.executable, "-m", "service.db", "upgrade"], env=own, check=True)
    assert manifest.revision == "0004"
    assert "public.schedule" not in manifest.tables
    said: list[str] = []
    restore(Processes(two), Archive.of(path), said.append)
    assert "schema migrated from 0004 to 0005" in said
    assert sql(two, "SELECT version_num FROM alembic_version")[0][0] == "0005"
    assert sql(two, "SELECT count(*) FROM schedule")[0][0] == 0
    before = content(two, "ballast")
    newer = rewritten(path, tmp_path / "newer.zip", lambda m: m.update(revision="0999", version="9.9"))
    with pytest.raises(
        StackError, match=r"revision 0999, and this version knows up to 0005; use version 9\.9"
    ):
        restore(Processes(two), Archive.of(newer), quiet, force=True)
    assert content(two, "ballast") == before
    sql(two, "DROP TABLE ballast")


def test_a_full_disk_leaves_nothing_half_made(one: Stack, tmp_path: Path) -> None:
    fill(one, "large", 5000)
    code, said = finished(command(one, "backup", "--folder", str(tmp_path), limit=65536))
    assert code == 1
    assert f"cannot write {tmp_path}/yardstick-" in said
    assert "nothing was kept of it" in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_backup_that_is_ended_in_its_middle_is_not_taken_for_one(
    one: Stack, large: Path, tmp_path: Path, number: signal.Signals
) -> None:
    # Its dump waits for a lock as long as the test wants it to.
    async def locked() -> tuple[int, str]:
        connection = await asyncpg.connect(one.endpoints()["postgres"])
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE ballast IN ACCESS EXCLUSIVE MODE")
                running = command(one, "backup", "--folder", str(tmp_path))
                await asyncio.to_thread(until, lambda: list(tmp_path.iterdir()), "a draft is there")
                os.killpg(running.pid, number)
                return await asyncio.to_thread(finished, running)
        finally:
            await connection.close()

    code, _ = asyncio.run(locked())
    assert code == (130 if number is signal.SIGINT else -signal.SIGKILL)
    assert not list(tmp_path.glob("*.zip"))
    code, said = finished(command(one, "backup", "--folder", str(tmp_path)))
    assert code == 0, said
    assert [file.suffix for file in tmp_path.iterdir()] == [".zip"]


def test_a_damaged_backup_is_refused_before_anything_is_touched(
    two: Stack, large: Path, old: tuple[int, str], tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.zip"
    shutil.copy(large, damaged)
    with damaged.open("r+b") as file:
        file.seek(damaged.stat().st_size // 2)
        file.write(b"\0\1\2\3")
    code, said = finished(command(two, "restore", str(damaged), "--yes"))
    assert code == 1
    assert "it is damaged" in said
    assert "Traceback" not in said
    assert content(two, "ballast") == old


def test_a_restore_for_which_there_is_no_room_is_not_begun(
    two: Stack, large: Path, old: tuple[int, str], tmp_path: Path
) -> None:
    huge = rewritten(large, tmp_path / "huge.zip", lambda m: m.update(database_bytes=1 << 60))
    with pytest.raises(StackError, match=r"MiB free, and the restore needs .* Nothing was changed"):
        restore(Processes(two), Archive.of(huge), quiet, force=True)
    assert Archive.of(large).manifest.database_bytes > 5_000_000
    assert content(two, "ballast") == old


def test_grafanas_state_goes_with_it_while_grafana_writes(one: Stack, two: Stack, tmp_path: Path) -> None:
    def database(stack: Stack, text: str) -> Path:
        folder = stack.paths.data("grafana")
        folder.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(folder / "grafana.db")) as state, state:
            state.execute("PRAGMA journal_mode = WAL")
            state.execute("CREATE TABLE annotation (text TEXT)")
            state.execute("INSERT INTO annotation VALUES (?)", (text,))
        return folder / "grafana.db"

    def texts(file: Path) -> list[str]:
        with closing(sqlite3.connect(file)) as state:
            return [text for (text,) in state.execute("SELECT text FROM annotation ORDER BY rowid")]

    said: list[str] = []
    fill(one, "with grafana", 5)
    without, _ = take(Processes(one), tmp_path / "without", said.append)
    assert any("without Grafana" in text for text in said)
    source = database(one, "committed")
    try:
        with closing(sqlite3.connect(source)) as writing:
            # In the log of a writer who goes on, and one row that is not committed.
            writing.execute("INSERT INTO annotation VALUES ('in the log')")
            writing.commit()
            writing.execute("INSERT INTO annotation VALUES ('not committed')")
            path, manifest = take(Processes(one), tmp_path / "with", said.append)
        assert "grafana.db" in manifest.members
        said.clear()
        restore(Processes(two), Archive.of(path), said.append)
        assert "Grafana's state was left out: Grafana is no part of this stack" in said
        target = database(two, "before")
        restore(Processes(two), Archive.of(path), said.append, force=True)
        assert texts(target) == ["committed", "in the log"]
        assert texts(target.with_name("grafana.db.before-restore")) == ["before"]
        assert not target.with_name("grafana.db.restored").exists()
        restore(Processes(two), Archive.of(without), said.append, force=True)
        assert said[-1] == "Grafana's state stays as it is: the backup holds none"
        assert texts(target) == ["committed", "in the log"]
    finally:
        for stack in (one, two):
            shutil.rmtree(stack.paths.data("grafana"), ignore_errors=True)
    sql(two, "DROP TABLE ballast")


def test_without_a_database_it_says_so_and_leaves_nothing(
    tmp_path: Path, large: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stack = Stack(tmp_path_factory.mktemp("down"), only=("postgres",))
    folder = tmp_path / "backups"
    for arguments in (("backup", "--folder", str(folder)), ("restore", str(large))):
        code, said = finished(command(stack, *arguments))
        assert (code, "the stack is not up; `make up` starts it" in said) == (1, True), said
    with stack:
        stack.kill("postgres")
        for arguments in (("backup", "--folder", str(folder)), ("restore", str(large))):
            code, said = finished(command(stack, *arguments))
            assert (code, "PostgreSQL does not run; `make up` starts it" in said) == (1, True), said
        assert list(folder.iterdir()) == []


def test_the_names_in_between_are_gone_and_the_manifest_can_be_read_by_hand(one: Stack, large: Path) -> None:
    assert not {STAGING, REPLACED} & databases(one)
    read = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(large)], capture_output=True, text=True, check=True
    )
    assert "manifest.json" in read.stdout
    assert json.loads(Archive.of(large).manifest.text())["kind"] == "yardstick-backup"
