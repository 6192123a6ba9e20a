"""What runs, how it does, and what it costs, as `status` shows it."""

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from compose import processes
from compose.configure import Setting
from compose.model import Component
from compose.ready import is_ready
from compose.state import Known, State
from compose.usage import measured


@dataclass(frozen=True)
class Status:
    """One component as it is now.

    Attributes:
        condition: ready, done, not ready, died, stopped, missing, or not part of this stack ("-").
        wanted: whether it should be ready or done.
        memory: resident bytes of its process and all that it started.
        cpu: per cent of one core that these take.
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
    cpu: float = 0.0

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        return not self.wanted or self.condition in ("ready", "done")


def look(table: Iterable[Component], state: State, setting: Setting) -> list[Status]:
    """The status of every component, its ready check included."""
    components = list(table)
    with ThreadPoolExecutor(len(components) or 1) as pool:
        found = list(pool.map(lambda component: _one(component, state, setting), components))
    # After the checks, which cost the components something themselves.
    usage = measured(one.pid for one in found if one.pid)
    return [
        replace(one, memory=usage[one.pid].memory, cpu=usage[one.pid].cpu) if one.pid else one
        for one in found
    ]


def _one(component: Component, state: State, setting: Setting) -> Status:
    name = component.name
    known = state.programs.get(name, Known())
    running = state.running.get(name)
    wanted = name in state.wanted
    ports = state.ports.get(name, {})
    if running and not component.one_shot and processes.alive(running.pid, running.started):
        serves = is_ready(component, Path(known.path), setting)
        condition, uptime = "ready" if serves else "not ready", time.time() - running.since
        return Status(component, condition, wanted, running.pid, ports, known, uptime=uptime)
    if component.one_shot and running:
        condition = "done" if running.ready else "failed"
    elif known.reasons:
        condition = "missing"
    elif running:
        condition = "died"
    else:
        condition = "stopped" if wanted else "-"
    return Status(component, condition, wanted, None, ports, known)
