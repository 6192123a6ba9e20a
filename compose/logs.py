"""The newest log lines of the components, merged by time and made readable."""

import json
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from compose.paths import Paths

COLOURS = ("cyan", "magenta", "blue", "green", "yellow", "bright_cyan", "bright_magenta", "bright_blue")
LEVELS = {"debug": "dim", "warning": "yellow", "warn": "yellow", "error": "red", "critical": "bold red"}
SHOWN_FIRST = ("action", "status", "duration")
LEFT_OUT = {
    "timestamp",
    "level",
    "event",
    "service",
    "env",
    "instance",
    "logger",
    "spanId",
    "exception",
    *SHOWN_FIRST,
}
STAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:\d\d| UTC)?")


@dataclass
class Source:
    """A file that is read from, and how far it has been read."""

    component: str
    file: Path
    offset: int = 0
    last: float = 0.0


def show(paths: Paths, names: Iterable[str], lines: int, follow: bool, console: Console) -> None:
    """Print the newest `lines` of each component in the order of their time; `follow` goes on."""
    sources = [Source(name, file) for name in names for file in _files(paths, name)]
    colours = {source.component: COLOURS[i % len(COLOURS)] for i, source in enumerate(sources)}
    found = []
    for source in sources:
        found += _read(source)[-lines:] if lines else _read(source)[:0]
    while True:
        for _, source, line in sorted(found, key=lambda one: one[0]):
            console.print(pretty(source.component, line, colours[source.component]), soft_wrap=True)
        if not follow:
            break
        time.sleep(0.3)
        found = [one for source in sources for one in _read(source)]


def _files(paths: Paths, name: str) -> list[Path]:
    return [paths.log(name), paths.logs / "service" / f"{name}.jsonl"]


def _read(source: Source) -> list[tuple[float, Source, str]]:
    """What came since the last read, at most 256 KB; a file that shrank is read from its start."""
    try:
        size = source.file.stat().st_size
        if size < source.offset:
            source.offset = 0
        with source.file.open("rb") as file:
            file.seek(max(source.offset, size - 256 * 1024))
            content = file.read()
    except FileNotFoundError:
        return []
    whole, _, rest = content.rpartition(b"\n")
    source.offset = size - len(rest)
    read = []
    for raw in whole.decode("utf-8", "replace").splitlines():
        source.last = _time(raw) or source.last
        read.append((source.last, source, raw))
    return read


def _time(line: str) -> float | None:
    found = STAMP.search(line[:200])
    if not found:
        return None
    text = found.group().replace(" UTC", "Z").replace(",", ".")
    try:
        moment = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def pretty(component: str, line: str, colour: str) -> Text:
    """A line for reading; one of the service's JSON lines as time, level, event and what is known."""
    text = Text(f"{component:<13}", style=colour)
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict) or "event" not in record:
        return text.append(f" {line}", style="default")
    level = str(record.get("level", "info"))
    text.append(f" {str(record.get('timestamp', ''))[11:23]} ", style="dim")
    text.append(f"{level:<8} ", style=LEVELS.get(level, "green"))
    text.append(str(record["event"]), style="default bold")
    for key in (*SHOWN_FIRST, *(key for key in record if key not in LEFT_OUT)):
        if key in record:
            text.append(f" {key}=", style="dim")
            text.append(str(record[key]), style="default")
    for error in record.get("exception") or []:
        text.append(f"\n    {error.get('type')}: {error.get('value')}", style="red")
    return text
