"""Which port each component gets: the one it had, the usual one, or a free one near it.

Two stacks that start at the same time must not choose the same port before either has bound it. So a choice
is made under one lock for all of the user's stacks, and is noted there for as long as that stack runs.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from compose.model import Component, StackError
from compose.processes import alive, start_mark
from compose.state import State

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Moved:
    """A port that is not the usual one, and who holds the usual one."""

    component: str
    port: str
    usual: int
    given: int
    holder: str


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


def holder(port: int) -> str:
    """Who listens on a port, as far as this user may see it: `python (pid 12)`."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return "another program"
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr[1:] == (port,) and connection.pid:
            with contextlib.suppress(psutil.Error):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another program"


def candidates(usual: int) -> Iterator[int]:
    """The usual port, then ports below the range from which the kernel gives out its own."""
    yield usual
    if usual + 10000 < 32000:
        yield usual + 10000
    start = usual % 10000
    for step in range(10000):
        yield 20000 + (start + step) % 10000


def registry() -> Path:
    """The file that holds the choices of all of this user's stacks."""
    folder = Path(tempfile.gettempdir()) / f"yardstick-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid():
        raise StackError(f"{folder} belongs to someone else; set TMPDIR to a folder of your own")
    return folder / "ports.json"


@dataclass
class Claim:
    """The ports of one stack, and the command that chose them."""

    ports: list[int]
    runner: int
    started: int

    def holds(self, state: Path) -> bool:
        """Whether the stack is being started, or has a process that runs."""
        if not state.is_dir():
            return False
        if alive(self.runner, self.started):
            return True
        return any(alive(p.pid, p.started) for p in State.load(state / "state.json").running.values())


@contextlib.contextmanager
def _claims() -> Iterator[dict[str, Claim]]:
    """The claims by state folder, to read and change under the lock; those that hold no more are left out."""
    with registry().open("a+", encoding="utf-8") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        handle.seek(0)
        try:
            claims = {
                str(state): Claim(**claim) for state, claim in json.loads(handle.read() or "{}").items()
            }
        except (ValueError, TypeError, AttributeError):
            claims = {}
        claims = {state: claim for state, claim in claims.items() if claim.holds(Path(state))}
        yield claims
        handle.seek(0)
        handle.truncate()
        handle.write(json.dumps({state: asdict(claim) for state, claim in claims.items()}))


def allocate(
    state: Path,
    components: Iterable[Component],
    earlier: dict[str, dict[str, int]],
    held: Callable[[str], bool],
    needed: Callable[[str], bool],
) -> tuple[dict[str, dict[str, int]], list[Moved]]:
    """Choose every port of a stack.

    Args:
        earlier: what the components had before; kept while still free.
        held: whether the component runs, and so holds its earlier ports itself.
        needed: whether the component will run, so that other stacks must keep off its ports.

    Returns:
        The ports by component and name, and those that are not the usual ones.
    """
    chosen: dict[str, dict[str, int]] = {}
    moved: list[Moved] = []
    table = tuple(components)
    with _claims() as claims:
        others = {
            port: other for other, claim in claims.items() if other != str(state) for port in claim.ports
        }
        taken = set(others)
        taken |= {port for c in table if held(c.name) for port in earlier.get(c.name, {}).values()}
        for component in table:
            chosen[component.name] = {}
            for name, usual in component.ports.items():
                had = earlier.get(component.name, {}).get(name)
                if had is not None and held(component.name):
                    port = had
                else:
                    wishes = [had] if had is not None else []
                    port = _first_free([*wishes, *candidates(usual)], taken)
                taken.add(port)
                chosen[component.name][name] = port
                if port != usual:
                    by = f"the stack of {others[usual]}" if usual in others else holder(usual)
                    moved.append(Moved(component.name, name, usual, port, by))
        claimed = [port for name, ports in chosen.items() if needed(name) for port in ports.values()]
        claims[str(state)] = Claim(claimed, os.getpid(), start_mark(os.getpid()) or 0)
    return chosen, moved


def release(state: Path) -> None:
    """Give up the choices of a stack that is down."""
    with _claims() as claims:
        claims.pop(str(state), None)


def _first_free(wishes: Iterable[int], taken: set[int]) -> int:
    for port in wishes:
        if port not in taken and is_free(port):
            return port
    raise StackError("no free port was found on 127.0.0.1 between 20000 and 30000")
