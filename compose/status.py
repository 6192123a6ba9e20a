"""What runs, how it does, and what it costs, as `status` shows it."""

import contextlib
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from compose import processes
from compose.configure import Setting
from compose.model import Component
from compose.ready import is_ready
from compose.state import Known, State


@dataclass(frozen=True)
class Status:
    """One component as it is now.

    Attributes:
        condition: ready, done, not ready, died, stopped, missing, or not part of this stack ("-").
        wanted: whether it should be ready or done.
        memory: resident bytes of its process and all that it started.
        uptime: seconds since it was started.
    """

    component: Component
    condition: str
    wanted: bool
    pid: int | None
    ports: dict[str, int]
    program: Known
    memory: int = 0
    uptime: float = 0.0

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        return not self.wanted or self.condition in ("ready", "done")


def look(table: Iterable[Component], state: State, setting: Setting) -> list[Status]:
    """The status of every component, its ready check included."""
    components = list(table)
    with ThreadPoolExecutor(len(components) or 1) as pool:
        return list(pool.map(lambda component: _one(component, state, setting), components))


def _one(component: Component, state: State, setting: Setting) -> Status:
    name = component.name
    known = state.programs.get(name, Known())
    running = state.running.get(name)
    wanted = name in state.wanted
    ports = state.ports.get(name, {})
    if running and not component.one_shot and processes.alive(running.pid, running.started):
        serves = is_ready(component, Path(known.path), setting)
        return Status(
            component, "ready" if serves else "not ready", wanted, running.pid, ports, known,
            memory(running.pid), time.time() - running.since,
        )  # fmt: skip
    if component.one_shot and running:
        condition = "done" if running.ready else "failed"
    elif known.reasons:
        condition = "missing"
    elif running:
        condition = "died"
    else:
        condition = "stopped" if wanted else "-"
    return Status(component, condition, wanted, None, ports, known)


def memory(pid: int) -> int:
    """Resident bytes of a process and its descendants; pages they share count once where the kernel tells."""
    total = 0
    for member in processes.family(pid):
        with contextlib.suppress(psutil.Error, OSError):
            full = psutil.Process(member).memory_full_info()
            total += getattr(full, "pss", full.rss)
    return total
