"""Folders of the cache, settings from the environment, and the locks between callers."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

Report = Callable[[str], None]


def cache() -> Path:
    """`${XDG_CACHE_HOME:-~/.cache}/yardstick`; a relative XDG_CACHE_HOME counts as unset."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "")
    return (base if base.is_absolute() else Path.home() / ".cache") / "yardstick"


def binaries() -> Path:
    """Where installed programs lie."""
    return cache() / "bin"


def downloads() -> Path:
    """Where unfinished downloads wait to be resumed."""
    return cache() / "download"


def logs() -> Path:
    """Where the output of builds goes."""
    return cache() / "log"


def flag(name: str) -> bool:
    """Whether a setting is switched on."""
    return os.environ.get(name, "").strip().lower() in {"1", "true", "yes", "on"}


@contextmanager
def locked(name: str, report: Report, waiting: str) -> Iterator[None]:
    """Hold the cache's lock of that name; the kernel frees it when its holder dies, however it dies."""
    folder = cache() / "lock"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
