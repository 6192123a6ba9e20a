"""What processes take of the machine: memory and CPU, each with all that it started."""

import contextlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psutil

from compose import processes


@dataclass(frozen=True)
class Usage:
    """Of one process and its descendants.

    Attributes:
        memory: resident bytes; pages that they share count once where the kernel tells.
        cpu: per cent of one core.
    """

    memory: int = 0
    cpu: float = 0.0


def measured(pids: Iterable[int], seconds: float = 0.5) -> dict[int, Usage]:
    """Watch processes for a while, all at once; a process that is gone takes nothing."""
    families = {pid: processes.family(pid) for pid in pids}
    begun = time.monotonic()
    before = {pid: _seconds(members) for pid, members in families.items()}
    time.sleep(seconds)
    after = {pid: _seconds(processes.family(pid)) for pid in families}
    passed = time.monotonic() - begun
    return {
        pid: Usage(memory(pid), max(0.0, 100 * _used(before[pid], after[pid]) / passed)) for pid in families
    }


def memory(pid: int) -> int:
    """Resident bytes of a process and its descendants, see `Usage`."""
    total = 0
    for member in processes.family(pid):
        with contextlib.suppress(psutil.Error, OSError):
            full = psutil.Process(member).memory_full_info()
            total += getattr(full, "pss", full.rss)
    return total


def _seconds(pids: Iterable[int]) -> dict[tuple[int, float], float]:
    """CPU seconds by process; a number that is used again is another process."""
    found = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error, OSError):
            process = psutil.Process(pid)
            times = process.cpu_times()
            found[pid, process.create_time()] = times.user + times.system
    return found


def _used(before: Mapping[tuple[int, float], float], after: Mapping[tuple[int, float], float]) -> float:
    # One that ended meanwhile takes its share with it; one that began has used all it has since then.
    return sum(seconds - before.get(process, 0.0) for process, seconds in after.items())
