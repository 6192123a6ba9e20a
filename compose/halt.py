"""Stop components, and find and end what an interrupted command left behind."""

import signal
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psutil

from compose import processes
from compose.events import Event, Phase, Report
from compose.graph import by_name, levels
from compose.model import Component
from compose.paths import Paths
from compose.processes import Found
from compose.state import State

T = TypeVar("T")


def stop_all(components: Iterable[Component], state: State, report: Report) -> None:
    """Stop components, users before the used, each level at once."""
    for step in levels(components):
        _together(step, lambda component: stop(component, state, report))


def stop(component: Component, state: State, report: Report) -> None:
    """Stop one component if it runs, and everything it started."""
    running = state.running.get(component.name)
    if running is None:
        return
    if processes.alive(running.pid, running.started) and not processes.is_stranger(
        running.pid, state.file.parent
    ):
        report(Event(component.name, Phase.STOPPING))
        below = _below(running.pid)
        killed = processes.end(
            [(running.pid, running.started)], component.stop_signal, component.stop_seconds
        )
        processes.end(below, signal.SIGTERM, 3.0)
        note = f"killed: it had not ended {component.stop_seconds:.0f} s after {component.stop_signal.name}"
        report(Event(component.name, Phase.STOPPED, note if killed else ""))
    state.set_running(component.name, None)


def kill(component: Component, state: State) -> None:
    """Kill a component's main process, as a crash would, and wait until what it had started is gone too."""
    running = state.running.get(component.name)
    if running and not processes.is_stranger(running.pid, state.file.parent):
        below = _below(running.pid)
        processes.end([(running.pid, running.started)], signal.SIGKILL, 5.0)
        processes.wait_for_end(below, 3.0)
        processes.end(below, signal.SIGKILL, 3.0)


def _below(pid: int) -> list[tuple[int, int]]:
    return [(child, processes.start_mark(child) or 0) for child in processes.family(pid) - {pid}]


def leftovers(paths: Paths, state: State) -> list[Found]:
    """Live processes that bear this stack's marker but belong to no component that the state knows."""
    known = {r.pid for r in state.running.values() if processes.alive(r.pid, r.started)}
    return [found for found in processes.marked(paths.state) if not _ancestry(found.pid) & known]


def end_leftovers(paths: Paths, state: State, table: Iterable[Component], report: Report) -> None:
    """End what an interrupted command left behind, each in its component's way."""
    found = leftovers(paths, state)
    if not found:
        return
    known = by_name(table)
    pids = {one.pid for one in found}
    tops = [one for one in found if not (_ancestry(one.pid) - {one.pid}) & pids]

    def finish(one: Found) -> None:
        component = known.get(one.component)
        how = component.stop_signal if component else signal.SIGTERM
        seconds = component.stop_seconds if component else 10.0
        report(Event(None, None, f"ending a left-over {one.component or 'process'} (pid {one.pid})"))
        processes.end([(one.pid, one.started)], how, seconds)

    _together(tops, finish)
    processes.end([(one.pid, one.started) for one in leftovers(paths, state)], signal.SIGTERM, 3.0)


def _ancestry(pid: int) -> set[int]:
    try:
        return {pid, *(parent.pid for parent in psutil.Process(pid).parents())}
    except psutil.Error:
        return {pid}


def _together(things: list[T], work: Callable[[T], None]) -> None:
    if things:
        with ThreadPoolExecutor(len(things)) as pool:
            list(pool.map(work, things))
