"""What each component takes of the machine, at rest and under load; and the page where that is published."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from compose.backup.manifest import commit
from compose.docker import Container
from compose.model import StackError
from compose.native import Stack
from compose.paths import ROOT
from compose.usage import Usage, measured
from compose.view import mebibytes, per_cent

GUIDE = ROOT / "docs" / "containers.md"
ALL = "in all"
LIMIT_NOT_MET = 99
"""Exit code of a load test that ran to its end and missed an objective: there was load all the same."""

Sample = Mapping[str, Usage]
Sampler = Callable[[], Sample]


@dataclass(frozen=True)
class Figures:
    """By component and `in all`: the highest memory and the mean CPU of each phase.

    Attributes:
        rest_seconds: how long it was watched at rest.
        scenario: of the load test.
    """

    mode: str
    rest: Sample
    load: Sample
    rest_seconds: float
    scenario: str


def of_processes(stack: Stack, seconds: float = 1.0) -> Sampler:
    """Watches a stack of plain processes, by their pids alone: asking them would be load."""

    def sample() -> Sample:
        pids = {one.name: pid for one in stack.table if (pid := stack.pid(one.name))}
        usage = measured(pids.values(), seconds)
        return {name: usage[pid] for name, pid in pids.items()}

    return sample


def of_containers(look: Callable[[], Sequence[Container]]) -> Sampler:
    """Watches containers by Docker's own figures, a second or two each time; replicas are added up."""

    def sample() -> Sample:
        found: dict[str, Usage] = {}
        for one in look():
            if one.memory:
                sum_ = found.get(one.service, Usage())
                memory = sum_.memory + round(mebibytes(one.memory) * 2**20)
                found[one.service] = Usage(memory, sum_.cpu + per_cent(one.cpu))
        return found

    return sample


def measure(
    mode: str,
    sample: Sampler,
    say: Callable[[str], None],
    *,
    seconds: float,
    scenario: str,
    load: Sequence[str] = (),
) -> Figures:
    """Watch the stack at rest, then while a load test runs.

    Args:
        seconds: how long to watch at rest.
        load: the command of the load test, in place of this project's.

    Raises:
        StackError: if nothing runs, or the load test does not come to its end.
    """
    say(f"watching the stack at rest for {seconds:.0f} s")
    rest: list[Sample] = []
    begun = time.monotonic()
    while not rest or time.monotonic() - begun < seconds:
        rest.append(sample())
    if not any(rest):
        raise StackError("the stack is not up; `make up` starts it")
    say(f"watching it under the load test {scenario}")
    own = [sys.executable, "-m", "loadtest", "run", "--scenario", scenario, "--stack"]
    process = subprocess.Popen(load or own, cwd=ROOT)
    busy: list[Sample] = []
    try:
        while process.poll() is None:
            busy.append(sample())
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
    if process.returncode not in (0, LIMIT_NOT_MET) or not busy:
        raise StackError(f"the load test ended with {process.returncode}; there are no figures under load")
    return Figures(mode, summary(rest), summary(busy), seconds, scenario)


def summary(samples: Sequence[Sample]) -> dict[str, Usage]:
    """The highest memory and the mean CPU by component; one that was not there took nothing."""
    whole = [
        {**one, ALL: Usage(sum(u.memory for u in one.values()), sum(u.cpu for u in one.values()))}
        for one in samples
    ]
    names = list(dict.fromkeys(name for one in whole for name in one if name != ALL))
    return {
        name: Usage(
            max(one.get(name, Usage()).memory for one in whole),
            sum(one.get(name, Usage()).cpu for one in whole) / len(whole),
        )
        for name in [*names, ALL]
    }


def markdown(figures: Figures, date: str) -> str:
    """The table, and under which conditions it came about."""
    load = f"`{figures.scenario}` load"
    lines = [
        f"| | memory at rest | CPU at rest | memory, {load} | CPU, {load} |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    names = [name for name in dict.fromkeys([*figures.rest, *figures.load]) if name != ALL]
    for name in [*names, ALL]:
        cells = [_cells(one.get(name)) for one in (figures.rest, figures.load)]
        label = f"**{name}**" if name == ALL else name
        lines.append(f"| {label} | {' | '.join(cells)} |")
    how = "plain processes" if figures.mode == "native" else "containers"
    memory = psutil.virtual_memory().total / 2**30
    where = f"{os.cpu_count()} cores, {memory:.0f} GiB, {platform.machine()}, commit {commit() or 'unknown'}"
    note = (
        f"Highest memory and mean CPU (100 % is one core) of the {how}, at rest over "
        f"{figures.rest_seconds:.0f} s. {date}, {where}."
    )
    return "\n".join([*lines, "", note]) + "\n"


def publish(figures: Figures, date: str, guide: Path = GUIDE) -> None:
    """Put the table into the guide, in place of the one that is there.

    Raises:
        StackError: if the guide has no place for it.
    """
    begin, end = (f"<!-- usage:{figures.mode}:{word} -->" for word in ("begin", "end"))
    text = guide.read_text("utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise StackError(f"{guide} has no place for the figures: {begin} and {end}")
    guide.write_text(f"{before}{begin}\n{markdown(figures, date)}{end}{after}", "utf-8")


def _cells(usage: Usage | None) -> str:
    return f"{usage.memory / 2**20:.0f} MiB | {usage.cpu:.1f} %" if usage else "- | -"
