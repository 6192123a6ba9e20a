"""Start one component and wait until it serves."""

import contextlib
import threading
import time
from pathlib import Path

from compose import processes
from compose.configure import Plan, Setting
from compose.events import Event, Phase, Report
from compose.model import StackError
from compose.paths import ROOT
from compose.prepare import prepare
from compose.ready import is_ready
from compose.state import Running, State

LOG_BYTES = 10 * 1024 * 1024
LAST_LINES = 12


class CancelledError(StackError):
    """The start was given up because the command was interrupted."""


def launch(plan: Plan, setting: Setting, state: State, report: Report, cancel: threading.Event) -> None:
    """Start the component, note its process, and return when its check passes.

    Raises:
        StackError: if it ends, or is not ready in time; the message holds its last lines.
        CancelledError: if `cancel` was set; the process is left for the caller to stop.
    """
    component, paths = plan.component, setting.paths
    log = paths.log(component.name)
    _rotate(log)
    report(Event(component.name, Phase.STARTING))
    prepare(plan, paths, setting.secrets["postgres_password"], cancel)
    if cancel.is_set():
        raise CancelledError(f"{component.name} was not started")
    offset = log.stat().st_size if log.exists() else 0
    try:
        pid = processes.spawn(
            processes.Call(plan.arguments, plan.environment, ROOT, log, paths.state, component.name)
        )
    except OSError as error:
        raise StackError(f"{component.name} could not be started: {error}") from error
    running = Running(pid, processes.start_mark(pid) or 0, plan.fingerprint, time.time())
    state.set_running(component.name, running)
    _until_ready(plan, setting, running, offset, cancel)
    running.ready = True
    state.set_running(component.name, running)


def _until_ready(
    plan: Plan, setting: Setting, running: Running, offset: int, cancel: threading.Event
) -> None:
    component = plan.component
    log = setting.paths.log(component.name)
    deadline = time.monotonic() + component.start_seconds
    pause = 0.03
    while True:
        if cancel.is_set():
            raise CancelledError(f"{component.name} was starting")
        if not processes.alive(running.pid, running.started):
            code = processes.exit_code(running.pid)
            if component.one_shot and code == 0:
                return
            raise StackError(_ended(component.name, code, setting, log, offset))
        if not component.one_shot and is_ready(component, plan.program.path, setting):
            return
        if time.monotonic() > deadline:
            raise StackError(
                f"{component.name} runs (pid {running.pid}) but was not ready after "
                f"{component.start_seconds:.0f} s; it goes on trying\n{tail(log, offset)}"
            )
        cancel.wait(pause)
        pause = min(pause * 1.5, 0.5)


def _ended(name: str, code: int | None, setting: Setting, log: Path, offset: int) -> str:
    how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
    last = tail(log, offset)
    hint = "correct what it says and run `make up` again"
    if "address already in use" in last.lower() or "errno 98" in last.lower():
        ports = ", ".join(str(port) for port in setting.ports[name].values())
        hint = (
            f"another program has taken one of its ports ({ports}) meanwhile; `make up` again chooses others"
        )
    return f"{name} {how} while starting. Its last lines, from {log}:\n{last}\nWhat to do: {hint}"


def tail(log: Path, offset: int = 0, lines: int = LAST_LINES) -> str:
    """The last lines of a log after `offset`, indented for reading."""
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(max(offset, log.stat().st_size - 64 * 1024))
        last = file.read().decode("utf-8", "replace").splitlines()[-lines:]
        return "\n".join(f"    {line[:400]}" for line in last) or "    (it wrote nothing)"
    return "    (it wrote nothing)"


def _rotate(log: Path) -> None:
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(log.name + ".1"))
