"""How long the jobs of a killed worker waited until another took them up."""

import bisect
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.kills.members import Death

Interval = tuple[float, float]


@dataclass(frozen=True)
class Recovery:
    """Seconds from a kill until the first and the last of the jobs that it interrupted were taken up again.

    `extra` is how much longer it may have taken because something else was down or stood still meanwhile.
    """

    role: str
    moment: str
    jobs: int
    first: float
    last: float
    extra: float


def marks(folder: Path, wanted: str) -> dict[str, list[float]]:
    """When each job was taken up (T) or begun (S), of all processes, in order (monotonic seconds)."""
    found: dict[str, list[float]] = defaultdict(list)
    for path in folder.glob("*.journal"):
        for line in path.read_text().splitlines():
            mark, job, at = line.split()
            if mark == wanted:
                found[job].append(float(at))
    for times in found.values():
        times.sort()
    return found


def recoveries(
    deaths: Iterable[Death], taken: dict[str, list[float]], outages: Sequence[Interval]
) -> tuple[list[Recovery], list[str]]:
    """One for each kill that interrupted jobs, and the jobs that were never taken up again.

    Such a job is not lost if another worker, whose lease had run out, ended it all the same.
    """
    found, never = [], []
    for death in deaths:
        waits = []
        for job in death.held:
            times = taken[job]
            after = bisect.bisect_right(times, death.at)
            if after == len(times):
                never.append(job)
            else:
                waits.append(times[after] - death.at)
        if waits:
            window = (death.at, death.at + max(waits))
            extra = sum(_overlap(window, outage) for outage in outages)
            found.append(Recovery(death.role, death.moment, len(death.held), min(waits), max(waits), extra))
    return found, never


def _overlap(one: Interval, other: Interval) -> float:
    return max(0.0, min(one[1], other[1]) - max(one[0], other[0]))
