"""What the tests of backup and restore look at: content, apart from how the product counts and hashes it."""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg

from compose.docker import Containers
from compose.native import Stack
from compose.paths import ROOT

BALLAST = 60_000


def sql(stack: Stack, statement: str, *values: object) -> list[Any]:
    """Rows of a statement, on a connection of its own."""

    async def ask() -> list[Any]:
        address = stack.endpoints()["postgres"].rpartition("/")[0]
        connection = await asyncpg.connect(f"{address}/yardstick")
        try:
            return list(await connection.fetch(statement, *values))
        finally:
            await connection.close()

    return asyncio.run(ask())


def content(stack: Stack, table: str) -> tuple[int, str]:
    """Rows of a table, and a hash of them in the order of their text."""
    rows = sorted(str(dict(row)) for row in sql(stack, f'SELECT * FROM "{table}"'))  # noqa: S608
    return len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest()


def databases(stack: Stack) -> set[str]:
    """All but PostgreSQL's own."""
    found = sql(stack, "SELECT datname FROM pg_database WHERE datname <> 'postgres' AND NOT datistemplate")
    return {row["datname"] for row in found}


def fill(stack: Stack, mark: str, rows: int = 50) -> None:
    """Put rows that bear a mark into a table of the test's own; so many that a restore takes a while."""
    sql(
        stack,
        "CREATE TABLE IF NOT EXISTS ballast (id bigint PRIMARY KEY, mark text, at timestamptz, load bytea)",
    )
    sql(stack, "TRUNCATE ballast")
    sql(
        stack,
        "INSERT INTO ballast SELECT i, $1, now(), sha256(i::text::bytea) FROM generate_series(1, $2) AS i",
        mark,
        rows,
    )


def command(stack: Stack | Containers, *arguments: str, limit: int | None = None) -> "subprocess.Popen[str]":
    """`python -m compose ...` on that stack, in a process group of its own.

    Args:
        limit: bytes that any file may have at most, as a full disk would have it.
    """
    run = [sys.executable, "-m", "compose", *arguments]
    if limit is not None:
        script = (
            "import resource, runpy, sys; sys.argv = ['compose', *sys.argv[1:]];"
            f" resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}));"
            " runpy.run_module('compose', run_name='__main__')"
        )
        run = [sys.executable, "-c", script, *arguments]
    return subprocess.Popen(
        run,
        cwd=ROOT,
        env={**os.environ, "YARDSTICK_STATE": str(stack.paths.state)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(process: "subprocess.Popen[str]", within: float = 120) -> tuple[int, str]:
    """Exit code and all that was said."""
    said, _ = process.communicate(timeout=within)
    return process.returncode, said


def until(condition: Callable[[], object], what: str, within: float = 60) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"it never came to that: {what}"
        time.sleep(0.02)


def rewritten(archive: Path, target: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of an archive with another manifest."""
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "manifest.json":
                manifest = json.loads(data)
                change(manifest)
                data = json.dumps(manifest).encode()
            new.writestr(name, data)
    return target
