"""The wall clock of the worker's host jumps by an hour, to and fro, while jobs run and wait.

A process whose clock was set back makes no keys until it is past the last one, or is started again: its jobs
wait that long, tried every few seconds. docs/jobs.proof.md tells what a clock behind the database's does.
"""

import shutil
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.kills.members import Nursery
from tests.faults.kills.recovery import marks
from tests.faults.poison.conftest import Open

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

SOURCE = Path(__file__).with_name("clock.c")
HOUR = 3600


@dataclass
class Clock:
    """The clock of everything that the nursery bears."""

    file: Path
    nursery: Nursery

    def shift(self, seconds: int) -> None:
        """So far from the true time, from now on."""
        with self.file.open("r+b") as page:
            page.write(seconds.to_bytes(8, "little", signed=True))


@pytest.fixture
async def clock(tmp_path: Path) -> AsyncIterator[Clock]:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler (cc) on PATH, to build the library that shifts a process's clock")
    library, file = tmp_path / "clock.so", tmp_path / "shift"
    command = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)]
    subprocess.run(command, check=True)  # noqa: ASYNC221 - nothing else runs yet
    file.write_bytes(bytes(8))
    async with Nursery({"LD_PRELOAD": str(library), "CLOCK_SHIFT": str(file)}) as nursery:
        yield Clock(file, nursery)


async def test_a_clock_that_jumps_loses_nothing_and_starts_no_storm(
    site: Open, clock: Clock, tmp_path: Path
) -> None:
    async with site(clock.nursery) as one:
        jobs = await one.tallies(20) + await one.tallies(5, due_in=3)
        clock.shift(HOUR)
        jobs += await one.tallies(20) + await one.tallies(5, due_in=3)
        await one.completed(jobs, within=60)
        clock.shift(0)
        after = await one.tallies(20)
        await one.worker.kill("random")
        await one.completed(after, within=90)
        begun = marks(tmp_path, "S")
        runs = sum(len(begun[str(job)]) for job in jobs + after)
        # A lease that seemed to have run out may give some a second run, which has no effect.
        assert runs <= 2 * len(jobs + after)
        assert one.worker.exits == []
