"""Asking a program what it is: its version, and a collector's components."""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

from compose.binaries.errors import SourceError
from compose.binaries.table import Entry, Version

SECONDS = 20


def check(entry: Entry, path: Path) -> str:
    """The version of the program at `path`, such as `3.14.0`.

    Raises:
        SourceError: if it does not run, is too old or too new, or lacks a component.
    """
    text = _ask(path, entry.version_command)
    version = parse_version(text)
    if version is None:
        raise SourceError(f"{path} states no version ({text.strip()[:120]!r})")
    stated, floor, below = (".".join(map(str, each)) for each in (version, entry.floor, entry.below))
    if version < entry.floor:
        raise SourceError(f"{path} is {stated}, older than {floor}")
    if version >= entry.below:
        raise SourceError(f"{path} is {stated}, and the configuration fits versions below {below}")
    if missing := missing_components(entry, path):
        raise SourceError(f"{path} lacks what the configuration names: {', '.join(missing)}")
    return stated


def parse_version(text: str) -> Version | None:
    """The first x.y.z after the word version, or else the first at all."""
    number = r"v?(\d+)\.(\d+)\.(\d+)"
    found = re.search(rf"version[:\s]+{number}", text) or re.search(rf"\b{number}", text)
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


def missing_components(entry: Entry, path: Path) -> list[str]:
    """What a collector does not contain of the entry's components, as `kind/name`."""
    if not entry.components:
        return []
    have: set[str] = set()
    kind = ""
    for line in _ask(path, ("components",)).splitlines():
        if section := re.match(r"(\w+):", line):
            kind = section[1]
        elif name := re.match(r"\s+(?:- )?(?:name|scheme): (\S+)", line):
            have.add(f"{kind}/{name[1]}")
    wanted = [f"{kind}/{name}" for kind, names in entry.components.items() for name in names]
    return [each for each in wanted if each not in have]


def _ask(path: Path, arguments: tuple[str, ...]) -> str:
    try:
        state = path.stat()
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from error
    return _answer(path, arguments, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=64)
def _answer(path: Path, arguments: tuple[str, ...], _mtime: int, _size: int) -> str:
    # The time and size are in the key, so that a replaced file is asked again.
    try:
        done = subprocess.run(
            [path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SourceError(f"{path} {' '.join(arguments)} did not answer within {SECONDS} s") from error
    except OSError as error:
        raise SourceError(f"{path} does not run: {error.strerror or error}") from error
    text = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        last = (text.strip().splitlines() or ["no output"])[0]
        raise SourceError(f"{path} {' '.join(arguments)} ended with {done.returncode}: {last[:160]}")
    return text
