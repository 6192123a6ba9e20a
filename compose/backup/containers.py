"""Backup and restore where the stack runs in containers."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO

from compose.docker import Containers
from compose.model import StackError

_READY_SECONDS = 180.0
_COPY = """
import contextlib, sqlite3, sys
one, other = sys.argv[1:3]
with contextlib.closing(sqlite3.connect(f"file:{one}?mode=ro", uri=True, timeout=30)) as source:
    with contextlib.closing(sqlite3.connect(other, timeout=30)) as target:
        source.backup(target)
"""
_READ = f"""{_COPY}
import shutil
with open(other, "rb") as copied:
    shutil.copyfileobj(copied, sys.stdout.buffer)
"""
_WRITE = """
import os, shutil, sys
with open(sys.argv[1], "wb") as out:
    shutil.copyfileobj(sys.stdin.buffer, out)
    os.fsync(out.fileno())
"""
_THERE = "import os, sys; sys.exit(not os.path.exists(sys.argv[1]))"
_REMOVE = "import os, sys; os.unlink(sys.argv[1])"
_STATE = "/state/grafana.db"


class InContainers:
    """A stack of containers as `compose.backup.place.Place`."""

    mode = "docker"

    def __init__(self, stack: Containers) -> None:
        self._stack = stack

    @property
    def environment(self) -> Mapping[str, str]:
        return os.environ

    def client(self, program: str, *arguments: str) -> list[str]:
        # Over the socket in its container, which lets the container's user in: no password travels.
        return ["docker", "exec", "--interactive", self._postgres(), program, "-U", "yardstick", *arguments]

    @contextlib.contextmanager
    def without(self, names: Iterable[str]) -> Iterator[None]:
        with self._stack.locked():
            chosen = [one for one in self._stack.status() if one.service in set(names) and one.running]
            stopped = [one.name for one in chosen]
            well = False
            try:
                if stopped:
                    self._stack.docker("stop", *stopped)
                yield
                well = True
            finally:
                try:
                    if stopped:
                        self._stack.docker("start", *stopped)
                        self._wait(stopped)
                except StackError:
                    # What went wrong in the block is the more important news.
                    if well:
                        raise

    def room(self) -> int:
        told = self._stack.docker("exec", self._postgres(), "df", "-P", "-k", "/var/lib/postgresql")
        return int(told[-1].split()[3]) * 1024

    def migrate(self, database: str) -> None:
        url = f"postgresql://yardstick@postgres:5432/{database}"
        if said := self._once("-e", f"DATABASE_URL={url}", "migrate"):
            raise StackError(f"the migration failed, and the data is as before: {said}")

    def clear_cache(self) -> None:
        if said := self._once("api", "python", "-m", "service.infra.cache", "clear"):
            raise StackError(f"the cache could not be cleared: {said}")

    def has_grafana(self) -> bool:
        command = self._beside(_THERE, _STATE)
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def save_grafana(self, target: Path) -> None:
        with target.open("wb") as out:
            self._grafana(_READ, _STATE, "/tmp/copy.db", output=out)  # noqa: S108 - in a container of its own

    def stage_grafana(self, source: Path) -> None:
        self._grafana(_COPY, _STATE, f"{_STATE}.before-restore")
        with source.open("rb") as copied:
            self._grafana(_WRITE, f"{_STATE}.restored", given=copied)

    def switch_grafana(self) -> None:
        # Into the database that is there, in one transaction of SQLite: its owner and its journal stay right.
        self._grafana(_COPY, f"{_STATE}.restored", _STATE)
        self._grafana(_REMOVE, f"{_STATE}.restored")

    def _postgres(self) -> str:
        # Not by `status`, which measures every container: this is asked for each of PostgreSQL's programs.
        for one in self._stack.ids("postgres"):
            if self._stack.docker("inspect", "--format", "{{.State.Running}}", one) == ["true"]:
                return one
        raise StackError("the stack's PostgreSQL does not run; `make up` starts it, `make logs` tells more")

    def _once(self, *arguments: str) -> str:
        """Run a service's command in a container of its own; what it complained of, or nothing."""
        done = self._stack.asked("run", "--rm", "--no-deps", "-T", *arguments)
        if not done.returncode:
            return ""
        said = (done.stdout + done.stderr).strip().splitlines()[-5:]
        return "\n".join(said) or f"exit code {done.returncode}"

    def _beside(self, program: str, *arguments: str) -> list[str]:
        """A command of Python on Grafana's volume, as its owner, in a container without network."""
        (image,) = self._stack.docker("inspect", "--format", "{{.Image}}", self._stack.ids("api")[0])
        volume = f"{self._stack.project}_grafana-data:/state"
        own = ["--user", "472:0", "--network", "none", "--read-only", "--tmpfs", "/tmp:mode=1777"]  # noqa: S108
        return [
            *("docker", "run", "--rm", "--interactive", "--cap-drop", "ALL", *own, "--volume", volume),
            *("--entrypoint", "python", image, "-c", program, *arguments),
        ]

    def _grafana(
        self, program: str, *arguments: str, given: IO[bytes] | None = None, output: IO[bytes] | None = None
    ) -> None:
        done = subprocess.run(
            self._beside(program, *arguments),
            stdin=given or subprocess.DEVNULL,
            stdout=output or subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise StackError(f"Grafana's state cannot be copied: {''.join(said) or done.returncode}")

    def _wait(self, names: list[str]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while late := [one.name for one in self._stack.status() if one.name in names and not one.good]:
            if time.monotonic() > deadline:
                raise StackError(f"not healthy after {_READY_SECONDS:g} s: {', '.join(late)}")
            time.sleep(0.5)
