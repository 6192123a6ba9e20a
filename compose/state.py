"""What the runner remembers between two commands, and the lock that keeps two of them apart."""

import contextlib
import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from compose.model import StackError
from compose.paths import Paths


@dataclass
class Running:
    """A process that was started.

    Attributes:
        pid: its process ID, which is also its process group.
        started: the kernel's start mark, so that a reused pid is not mistaken for it.
        fingerprint: of its command, environment and configuration.
        since: seconds since the epoch.
        ready: whether its check has passed, or, for a one-shot, whether it ended well.
    """

    pid: int
    started: int
    fingerprint: str
    since: float
    ready: bool = False


@dataclass
class Known:
    """The program that a component was last run with; a missing one has reasons instead of a path."""

    path: str = ""
    version: str = ""
    source: str = ""
    reasons: list[str] = field(default_factory=list)


@dataclass
class State:
    """The remembered state of one stack; every change is written at once and atomically."""

    file: Path
    ports: dict[str, dict[str, int]] = field(default_factory=dict)
    wanted: list[str] = field(default_factory=list)
    running: dict[str, Running] = field(default_factory=dict)
    programs: dict[str, Known] = field(default_factory=dict)
    trouble: str | None = None

    def __post_init__(self) -> None:
        self._guard = threading.Lock()

    @classmethod
    def load(cls, file: Path) -> "State":
        """Read the state; a damaged file gives an empty state whose `trouble` says so."""
        try:
            text = file.read_text("utf-8")
        except FileNotFoundError:
            return cls(file)
        except (OSError, UnicodeDecodeError) as error:
            return cls(file, trouble=f"{file} cannot be read ({error}); the stack is looked up anew")
        try:
            raw = json.loads(text)
            return cls(
                file,
                ports={str(n): {str(k): int(v) for k, v in p.items()} for n, p in raw["ports"].items()},
                wanted=[str(name) for name in raw["wanted"]],
                running={str(n): Running(**values) for n, values in raw["running"].items()},
                programs={str(n): Known(**values) for n, values in raw["programs"].items()},
            )
        except (ValueError, TypeError, KeyError, AttributeError):
            return cls(file, trouble=f"{file} is damaged; the stack's processes are looked up anew")

    def save(self) -> None:
        """Write the state.

        Raises:
            StackError: if the disk does not take it.
        """
        with self._guard:
            fields = ("ports", "wanted", "running", "programs")
            content = {name: value for name, value in asdict(self).items() if name in fields}
            write(self.file, json.dumps(content, indent=1) + "\n")

    def set_running(self, name: str, running: Running | None) -> None:
        """Remember the process of a component, or that it has none."""
        if running is None:
            self.running.pop(name, None)
        else:
            self.running[name] = running
        self.save()


def write(file: Path, text: str, mode: int = 0o600) -> None:
    """Replace `file` as a whole, so that a reader never sees half of it.

    Raises:
        StackError: if the disk does not take it.
    """
    draft = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        with os.fdopen(
            os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8"
        ) as out:
            out.write(text)
        draft.replace(file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise StackError(f"cannot write {file}: {error.strerror or error}") from error


@contextlib.contextmanager
def locked(paths: Paths, waiting: Callable[[str], None], seconds: float = 600.0) -> Iterator[None]:
    """Hold the stack's lock. The kernel gives it up when the holder dies.

    Raises:
        StackError: if another command still holds it after `seconds`.
    """
    paths.make()
    with paths.lock.open("r+", encoding="utf-8") as file:
        deadline = time.monotonic() + seconds
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = file.read().strip() or "?"
                file.seek(0)
                if time.monotonic() > deadline:
                    raise StackError(
                        f"another command (pid {holder}) has worked on {paths.state} for {seconds:.0f} s; "
                        "wait for it, or stop it"
                    ) from None
                if not told:
                    waiting(f"another command (pid {holder}) works on {paths.state}; waiting for it")
                    told = True
                time.sleep(0.1)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
