"""The processes of a campaign, restarted at once whenever they end, as an init system would."""

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from service.tasks import end
from tests.faults.kills import roles

ROOT = Path(__file__).parents[3]
_TRAPPED_WITHIN = 5.0
_STARTED_WITHIN = 60.0


class Nursery:
    """The parent of the processes, which itself has `environment` on top of the test's own."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = {**os.environ, **(environment or {})}
        self._ends: dict[int, asyncio.Future[int]] = {}
        self._born: asyncio.Queue[int] = asyncio.Queue()
        self._asking = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._process: Process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.faults.kills.nursery",
            stdin=PIPE, stdout=PIPE, cwd=ROOT, env=self._environment,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read(), name="nursery")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await end(self._reading)

    async def bear(self, role: str, environment: Mapping[str, str], folder: Path, log: Path) -> int:
        """Start a process; gives its ID."""
        order = {"role": role, "environment": dict(environment), "folder": str(folder), "log": str(log)}
        assert self._process.stdin is not None
        async with self._asking:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            return await self._born.get()

    async def ended(self, pid: int) -> int:
        """Wait for its end; gives the exit code, below 0 the signal that killed it."""
        return await asyncio.shield(self._ends[pid])

    async def _read(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            word, pid, *status = line.split()
            if word == b"born":
                self._ends[int(pid)] = asyncio.get_running_loop().create_future()
                self._born.put_nowait(int(pid))
            else:
                self._ends[int(pid)].set_result(int(status[0]))


@dataclass(frozen=True, slots=True)
class Death:
    """Of a process that was killed: at which moment, and the jobs it was running (monotonic seconds)."""

    role: str
    moment: str
    at: float
    held: frozenset[str]


@dataclass
class Member:
    """One role, played by one process after another."""

    nursery: Nursery
    role: str
    environment: Mapping[str, str]
    folder: Path
    deaths: list[Death] = field(default_factory=list)
    exits: list[int] = field(default_factory=list)
    """The exit codes of those that ended without being killed."""
    frozen: bool = False
    pid: int = 0
    _kills: dict[int, str] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return roles.kind_of(self.role)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.role}.log"

    async def live(self) -> None:
        """Start, and start again, until cancelled."""
        while True:
            pid = await self.nursery.bear(self.role, self.environment, self.folder, self.log)
            self._kills.pop(pid, None)  # of an earlier process that had the same ID
            self.pid = pid
            code = await self.nursery.ended(pid)
            at, self.pid = time.monotonic(), 0
            if code == -signal.SIGKILL and pid in self._kills:
                self.deaths.append(Death(self.role, self._kills[pid], at, self._held(pid)))
            else:
                self.exits.append(code)
                await asyncio.sleep(0.1)

    async def kill(self, moment: str) -> str:
        """`kill -9` now, or, with the name of a point, by a trap there; gives what it was in the end."""
        async with asyncio.timeout(_STARTED_WITHIN):
            while not self.pid:  # noqa: ASYNC110 - a restart takes some milliseconds
                await asyncio.sleep(0.01)
        pid = self.pid
        if moment != "random":
            self._kills[pid] = moment
            trap = roles.trap(self.folder, self.role, moment)
            trap.touch()
            try:
                await asyncio.wait_for(self.nursery.ended(pid), _TRAPPED_WITHIN)
            except TimeoutError:
                pass
            else:
                return moment
            finally:
                # Nobody who comes later is to step into it.
                trap.unlink(missing_ok=True)
        self._kills[pid] = "random"
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await self.nursery.ended(pid)
        return "random"

    async def gone(self) -> None:
        """Kill it for good, when nobody starts it again."""
        if pid := self.pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await self.nursery.ended(pid)

    async def freeze(self, seconds: float) -> None:
        """Stop the process as a hanging machine would, then let it go on."""
        self.frozen = True
        try:
            if pid := self.pid:
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(seconds)
                os.kill(pid, signal.SIGCONT)
        finally:
            self.frozen = False

    def _held(self, pid: int) -> frozenset[str]:
        """The jobs whose last mark is that they began; of one killed before it had a journal, none."""
        last: dict[str, str] = {}
        path = roles.journal(self.folder, self.role, pid)
        for line in path.read_text().splitlines() if path.exists() else ():
            mark, job, _ = line.split()
            if mark != "T":
                last[job] = mark
        return frozenset(job for job, mark in last.items() if mark == "S")
