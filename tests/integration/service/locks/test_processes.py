"""Several processes at one lock, some killed and some paused for longer than the time to live.

An overlap is a step of one holder between two steps of another. By the order in which PostgreSQL accepted
them there is none: with a lower fencing token than the last one accepted, a step is refused.
"""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import groupby, pairwise
from pathlib import Path

import asyncpg
import pytest

from tests.integration.service.locks.contender import TTL

CONTENDER = Path(__file__).with_name("contender.py")
Turns = asyncio.Queue["Contender"]
ROOT = Path(__file__).parents[4]
ROUNDS = (signal.SIGKILL, signal.SIGSTOP, signal.SIGSTOP) * 2
TURNS = 6
PAUSE = TTL * 1.6


class Contender:
    """A process, and what it said. Whenever it is inside, it puts itself into `inside`."""

    def __init__(self, process: Process, inside: "asyncio.Queue[Contender]") -> None:
        self.process = process
        self.said: Counter[str] = Counter()
        self._inside = inside
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            word = line.split()[0].decode()
            self.said[word] += 1
            if word == "holding":
                self._inside.put_nowait(self)

    async def stop(self) -> int:
        """Let it come to its end; its exit code."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        code = await asyncio.wait_for(self.process.wait(), 30)
        await self._reader
        return code


@asynccontextmanager
async def contenders(number: int, *arguments: str) -> AsyncIterator[tuple[list[Contender], Turns]]:
    inside: Turns = asyncio.Queue()
    everybody: list[Contender] = []
    try:
        for _ in range(number):
            process = await asyncio.create_subprocess_exec(
                sys.executable, str(CONTENDER), *arguments,
                stdin=PIPE, stdout=PIPE, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            everybody.append(Contender(process, inside))
        async with asyncio.timeout(30):
            while not all(one.said["ready"] for one in everybody):  # noqa: ASYNC110 - they say it elsewhere
                await asyncio.sleep(0.05)
        yield everybody, inside
    finally:
        for one in everybody:
            with suppress(ProcessLookupError):
                one.process.kill()
            await one.process.wait()


async def next_inside(inside: Turns) -> Contender:
    """Whoever enters next, at the moment when it says so."""
    while not inside.empty():
        inside.get_nowait()
    return await asyncio.wait_for(inside.get(), 20)


async def pause(one: Contender) -> None:
    one.process.send_signal(signal.SIGSTOP)
    await asyncio.sleep(PAUSE)
    one.process.send_signal(signal.SIGCONT)


@pytest.fixture
async def journal(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A counter guarded by its fencing token, and every step that was accepted in its order."""
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "CREATE TABLE guarded (id int PRIMARY KEY, value int NOT NULL, fence bigint NOT NULL);"
        "INSERT INTO guarded VALUES (1, 0, 0);"
        "CREATE TABLE journal (step bigserial PRIMARY KEY, fence bigint NOT NULL, action text NOT NULL)"
    )
    yield connection
    await connection.close()


async def steps(journal: asyncpg.Connection) -> list[tuple[int, str]]:
    # Every step locks the one row before it writes its line, so the lines are in the order of acceptance.
    return [tuple(row) for row in await journal.fetch("SELECT fence, action FROM journal ORDER BY step")]


def overlaps(accepted: list[tuple[int, str]]) -> int:
    """How often a holder came back after another had been there."""
    turns = [fence for fence, _ in groupby(accepted, key=lambda step: step[0])]
    return sum(later <= earlier for earlier, later in pairwise(turns))


async def test_holders_never_overlap_under_kills_and_pauses(
    redis_database: str, database_url: str, journal: asyncpg.Connection
) -> None:
    async with contenders(5, redis_database, database_url) as (everybody, inside):
        for disturbance in ROUNDS:
            victim = await next_inside(inside)
            if disturbance is signal.SIGKILL:
                victim.process.kill()
            else:
                await pause(victim)
            for _ in range(TURNS):
                await next_inside(inside)
        codes = [await one.stop() for one in everybody]
    accepted = await steps(journal)
    said = sum((one.said for one in everybody), Counter[str]())
    value = await journal.fetchval("SELECT value FROM guarded")
    writes = sum(action == "write" for _, action in accepted)
    kills, pauses = (ROUNDS.count(each) for each in (signal.SIGKILL, signal.SIGSTOP))
    sys.stdout.write(
        f"{len(everybody)} processes, {kills} killed and {pauses} paused {PAUSE} s inside, at a time to live"
        f" of {TTL} s: {len({fence for fence, _ in accepted})} holders, {writes} writes, counter {value},"
        f" {overlaps(accepted)} overlaps, {said['refused']} late steps refused, {said['lost']} losses\n"
    )
    assert sorted(codes) == [-signal.SIGKILL] * kills + [0] * (len(everybody) - kills)
    assert overlaps(accepted) == 0
    assert value == writes >= len(ROUNDS) * (TURNS - 1)
    # Who was paused inside was stopped by the token or by its own clock. A signal may also come too late.
    assert said["refused"] + said["lost"] >= 1


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_late_write_is_refused_by_the_token_alone(
    redis_database: str, database_url: str, journal: asyncpg.Connection, *, guarded: bool
) -> None:
    """The same pauses without the guard: a late write lands. So it is the token that holds it off."""
    more = () if guarded else ("unguarded",)
    late = 0
    async with contenders(2, redis_database, database_url, *more) as (everybody, inside):
        async with asyncio.timeout(60):
            while late == 0 and sum(one.said["refused"] for one in everybody) == 0:
                await pause(await next_inside(inside))
                await next_inside(inside)
                await next_inside(inside)
                late = overlaps(await steps(journal))
    refused = sum(one.said["refused"] for one in everybody)
    assert (refused > 0, late > 0) == (guarded, not guarded)
