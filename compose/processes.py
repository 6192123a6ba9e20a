"""Processes that outlive the command which started them, and how they are known again.

A process is ours when its environment names this stack's state folder. That holds for the ones whose start
was never written down, because the runner was killed, and it never holds for a stranger with a reused pid.
"""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

STACK = "YARDSTICK_STACK"
COMPONENT = "YARDSTICK_COMPONENT"

_children: dict[int, "subprocess.Popen[bytes]"] = {}
_children_guard = threading.Lock()


@dataclass(frozen=True)
class Found:
    """A live process that carries a stack's marker."""

    pid: int
    started: int
    component: str


@dataclass(frozen=True)
class Call:
    """A command to run for a component of the stack whose folder is `state`, its output appended to `log`."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    log: Path
    state: Path
    component: str


def start_mark(pid: int) -> int | None:
    """A number that differs between two processes with the same pid; None if there is no such process."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
    except ProcessLookupError:
        return None
    else:
        return int(after_name[19])
    try:
        return int(psutil.Process(pid).create_time() * 100)
    except psutil.Error:
        return None


def alive(pid: int, started: int) -> bool:
    """Whether that very process still runs; a zombie does not."""
    with _children_guard:
        child = _children.get(pid)
    if child is not None and child.poll() is not None:
        return False
    if start_mark(pid) != started:
        return False
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def exit_code(pid: int) -> int | None:
    """How a child of this command ended; None if it runs, or was started by another command."""
    with _children_guard:
        child = _children.get(pid)
    return child.poll() if child else None


def spawn(call: Call) -> int:
    """Start a process in a session of its own.

    Returns:
        Its pid, which is also its process group.

    Raises:
        OSError: if the program cannot be started.
    """
    with call.log.open("ab", buffering=0) as out:
        child = subprocess.Popen(
            list(call.arguments),
            env={**call.environment, STACK: str(call.state), COMPONENT: call.component},
            cwd=call.folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with _children_guard:
        _children[child.pid] = child
    return child.pid


def marker(pid: int) -> tuple[str, str] | None:
    """The state folder and component in the environment of a process, if it has them and can be read."""
    try:
        environment = psutil.Process(pid).environ()
    except (psutil.Error, OSError):
        return None
    if STACK not in environment:
        return None
    return environment[STACK], environment.get(COMPONENT, "")


def marked(state: Path) -> list[Found]:
    """Every live process of this stack, children included, the runner itself excluded."""
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        mark = marker(process.pid)
        started = start_mark(process.pid)
        if mark and mark[0] == str(state) and started is not None and alive(process.pid, started):
            found.append(Found(process.pid, started, mark[1]))
    return found


def is_stranger(pid: int, state: Path) -> bool:
    """Whether the process can be read and does not carry this stack's marker."""
    try:
        return psutil.Process(pid).environ().get(STACK) != str(state)
    except (psutil.Error, OSError):
        return False


def family(pid: int) -> set[int]:
    """The process and everything it started that is still there."""
    try:
        return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except psutil.Error:
        return {pid}


def send(pid: int, started: int, number: signal.Signals) -> None:
    """Signal that very process; silent when it is gone."""
    if start_mark(pid) == started:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end(processes: Iterable[tuple[int, int]], number: signal.Signals, seconds: float) -> list[int]:
    """Signal processes, given as pid and start mark, wait for them, and kill what is left.

    Returns:
        The pids that had to be killed.
    """
    left = [(pid, started) for pid, started in processes if alive(pid, started)]
    for pid, started in left:
        send(pid, started, number)
    left = wait_for_end(left, seconds)
    for pid, started in left:
        send(pid, started, signal.SIGKILL)
    wait_for_end(left, 5.0)
    return [pid for pid, _ in left]


def wait_for_end(processes: list[tuple[int, int]], seconds: float) -> list[tuple[int, int]]:
    """Wait until processes have ended; those that have not after `seconds` are returned."""
    deadline = time.monotonic() + seconds
    left = processes
    while left and time.monotonic() < deadline:
        left = [(pid, started) for pid, started in left if alive(pid, started)]
        if left:
            time.sleep(0.03)
    return [(pid, started) for pid, started in left if alive(pid, started)]


def run_to_end(call: Call, cancel: threading.Event, seconds: float) -> int:
    """Run a command that ends by itself; `cancel` ends it early.

    Returns:
        Its exit code; negative for a signal, as in `subprocess`.
    """
    pid = spawn(call)
    started = start_mark(pid) or 0
    deadline = time.monotonic() + seconds
    while (code := exit_code(pid)) is None:
        if cancel.wait(0.02) or time.monotonic() > deadline:
            end([(pid, started)], signal.SIGTERM, 3.0)
            return -signal.SIGTERM
    return code
