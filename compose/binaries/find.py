"""The order in which a program is looked for: PATH, cache, official release, Go build."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compose.binaries import gobuild, places, probe, release
from compose.binaries.errors import ProgramUnavailable, SourceError
from compose.binaries.table import PROGRAMS, Entry


@dataclass(frozen=True)
class Program:
    """A program that is there and fits; `source` is `PATH`, `cache`, `release` or `go build`."""

    name: str
    path: Path
    version: str
    source: str


def locate(name: str) -> Program:
    """The program from PATH or the cache, without fetching anything.

    Raises:
        ProgramUnavailable: if neither has one that fits.
        KeyError: if no such program is known.
    """
    reasons: list[str] = []
    found = _at_hand(PROGRAMS[name], reasons)
    if found is None:
        advice = f"Fetch it with `python -m compose.binaries fetch {name}`."
        raise ProgramUnavailable(name, tuple(reasons), advice)
    return found


def obtain(name: str, *, report: Callable[[str], None] = lambda _: None) -> Program:
    """The program from the first place that has it; downloads or builds it if need be.

    Callers in other processes wait for each other, and then share what the first one brought.

    Args:
        name: a key of `PROGRAMS`.
        report: told in a line what is going on, about every second.

    Raises:
        ProgramUnavailable: with the reason of every way that was tried.
        KeyError: if no such program is known.
    """
    entry = PROGRAMS[name]
    reasons: list[str] = []
    if found := _at_hand(entry, reasons):
        return found
    if places.flag("YARDSTICK_OFFLINE"):
        reasons.append("release, go build: not tried, YARDSTICK_OFFLINE is set")
        raise ProgramUnavailable(name, tuple(reasons), _advice(entry))
    ways: tuple[tuple[str, Callable[[], None]], ...] = (
        ("release", lambda: release.install(entry, report)),
        ("go build", lambda: gobuild.build(entry, places.binaries(), _check_sibling, report)),
    )
    try:
        with places.locked(entry.group, report, f"{name}: waiting for another process that is fetching it"):
            for source, way in ways:
                # Whoever held the lock before may have brought it.
                if found := _at_hand(entry, []):
                    return found
                try:
                    way()
                    path = release.installed(entry)
                    return Program(name, path, probe.check(entry, path), source)
                except SourceError as error:
                    reasons.append(f"{source}: {error}")
    except OSError as error:
        why = error.strerror or error
        reasons.append(f"the cache {places.cache()} cannot be written ({why}); set XDG_CACHE_HOME")
    raise ProgramUnavailable(name, tuple(reasons), _advice(entry))


def _at_hand(entry: Entry, reasons: list[str]) -> Program | None:
    names = entry.on_path or (entry.name,)
    for name in names:
        if path := shutil.which(name):
            try:
                return Program(entry.name, Path(path), probe.check(entry, Path(path)), "PATH")
            except SourceError as error:
                reasons.append(f"PATH: {error}")
    if not reasons:
        reasons.append(f"PATH: no {' or '.join(names)}")
    path_in_cache = release.installed(entry)
    if not path_in_cache.is_file():
        reasons.append(f"cache: no {path_in_cache}")
        return None
    try:
        return Program(entry.name, path_in_cache, probe.check(entry, path_in_cache), "cache")
    except SourceError as error:
        reasons.append(f"cache: {error}")
        return None


def _check_sibling(name: str, path: Path) -> None:
    probe.check(PROGRAMS[name], path)


def _advice(entry: Entry) -> str:
    floor, below = (".".join(map(str, each)) for each in (entry.floor, entry.below))
    names = " or ".join(entry.on_path or (entry.name,))
    return f"Put {names}, from {floor} up and below {below}, on PATH or at {release.installed(entry)}."
