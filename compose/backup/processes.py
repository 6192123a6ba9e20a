"""Backup and restore where the stack runs as plain processes."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, closing
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from compose.backup.place import DATABASE
from compose.model import StackError
from compose.native import Stack
from compose.paths import ROOT


class Processes:
    """A stack of plain processes as `compose.backup.place.Place`."""

    mode = "native"

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    @property
    def environment(self) -> Mapping[str, str]:
        address = urlsplit(self._stack.endpoints().get("postgres", ""))
        # The user's own PG* variables are for other servers.
        rest = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return {**rest, "PGPASSWORD": address.password or ""}

    def client(self, program: str, *arguments: str) -> list[str]:
        address = urlsplit(self._stack.endpoints().get("postgres", ""))
        if not address.hostname:
            raise StackError("the stack is not up; `make up` starts it")
        if self._stack.pid("postgres") is None:
            raise StackError(
                "the stack's PostgreSQL does not run; `make up` starts it, `make logs` tells more"
            )
        path = self._stack.program("postgres").with_name(program)
        if not path.is_file():
            raise StackError(f"there is no {program} beside {path.with_name('postgres')}")
        port = str(address.port)
        return [str(path), "-h", address.hostname, "-p", port, "-U", address.username or "", *arguments]

    def without(self, names: Iterable[str]) -> AbstractContextManager[None]:
        return self._stack.without(names)

    def room(self) -> int:
        return shutil.disk_usage(self._stack.paths.data("postgres")).free

    def migrate(self, database: str) -> None:
        own = self._stack.environment("migrate")
        address = urlsplit(own["DATABASE_URL"])
        if address.path != f"/{DATABASE}":
            raise StackError(f"the stack's database is {address.path[1:]}, not {DATABASE}")
        url = urlunsplit(address._replace(path=f"/{database}"))
        if said := _failed("service.db", "upgrade", {**own, "DATABASE_URL": url}):
            raise StackError(f"the migration failed, and the data is as before: {said}")

    def clear_cache(self) -> None:
        if said := _failed("service.infra.cache", "clear", self._stack.environment("api")):
            raise StackError(f"the cache could not be cleared: {said}")

    def has_grafana(self) -> bool:
        return self._grafana.exists()

    def save_grafana(self, target: Path) -> None:
        _copy(self._grafana, target)

    def stage_grafana(self, source: Path) -> None:
        _copy(self._grafana, self._beside("before-restore"))
        _copy(source, self._beside("restored"))

    def switch_grafana(self) -> None:
        staged = self._beside("restored")
        # Into the database that is there, in one transaction of SQLite: its owner and its journal stay right.
        _copy(staged, self._grafana)
        staged.unlink()

    @property
    def _grafana(self) -> Path:
        return self._stack.paths.data("grafana") / "grafana.db"

    def _beside(self, ending: str) -> Path:
        return self._grafana.with_name(f"{self._grafana.name}.{ending}")


def _failed(module: str, argument: str, own: Mapping[str, str]) -> str:
    """What a command of the service complained of; empty if it went well."""
    done = subprocess.run(
        [sys.executable, "-m", module, argument],
        env={**os.environ, **own},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.returncode:
        return ""
    said = (done.stdout + done.stderr).strip().splitlines()[-5:]
    return "\n".join(said) or f"exit code {done.returncode}"


def _copy(source: Path, target: Path) -> None:
    """Copy an SQLite database as of one moment, whoever writes to it meanwhile.

    Raises:
        StackError: if it cannot be read or written; the target is then as before.
    """
    address = f"file:{quote(str(source))}?mode=ro"
    try:
        target.touch(mode=0o600)
        with (
            closing(sqlite3.connect(address, uri=True, timeout=30)) as one,
            closing(sqlite3.connect(target, timeout=30)) as other,
        ):
            one.backup(other)
    except (sqlite3.Error, OSError) as error:
        raise StackError(f"Grafana's state cannot be copied from {source} to {target}: {error}") from error
