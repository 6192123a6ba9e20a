"""The service level objectives of slo.yaml, validated; rules, dashboards and the load gate read them here."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

SLO_FILE = Path(__file__).with_name("slo.yaml")
KINDS = ("availability", "latency", "freshness")
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


class SloFileError(ValueError):
    """The file cannot be used; the message has one line for each fault."""


@dataclass(frozen=True)
class Slo:
    """One objective: the share of events (0..1) that must be good over the file's window."""

    name: str
    title: str
    objective: float
    kind: str
    metric: str
    selector: str
    minimum_bad_events: int
    bad_selector: str | None = None
    threshold_seconds: float | None = None

    @property
    def error_budget(self) -> float:
        """The share of events that may be bad."""
        return round(1 - self.objective, 9)


@dataclass(frozen=True)
class SloFile:
    """`window_days` is what the objectives, and so the error budgets, are counted over."""

    service: str
    team: str
    window_days: int
    slos: tuple[Slo, ...]

    def named(self, name: str) -> Slo:
        """The objective of this name; KeyError when there is none."""
        return {slo.name: slo for slo in self.slos}[name]


def load(path: Path = SLO_FILE) -> SloFile:
    """Read and validate the file; SloFileError tells every fault at once."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SloFileError(f"{path}: cannot be read as YAML: {error}") from error
    if not isinstance(raw, dict):
        raise SloFileError(f"{path}: must be a mapping with service, team, window and slos; it holds {raw!r}")
    faults: list[str] = []
    for field in ("service", "team"):
        _check(faults, raw, field, _is_text, "a name, such as yardstick")
    _check(
        faults, raw, "window", lambda v: _is_text(v) and re.fullmatch(r"[1-9]\d*d", v), "days, such as 30d"
    )
    entries = raw.get("slos")
    if not isinstance(entries, list) or not entries:
        faults.append("slos: must list at least one objective")
        entries = []
    for position, entry in enumerate(entries):
        where = f"slos[{position}]"
        if not isinstance(entry, dict):
            faults.append(f"{where}: must be a mapping, not {entry!r}")
            continue
        faults += [f"{where} ({entry.get('name', 'no name')}): {fault}" for fault in _slo_faults(entry)]
    names = [str(entry.get("name")) for entry in entries if isinstance(entry, dict)]
    faults += [
        f"slos: the name {name} stands twice" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if faults:
        raise SloFileError("\n".join(f"{path}: {fault}" for fault in faults))
    return SloFile(
        raw["service"], raw["team"], int(raw["window"][:-1]), tuple(Slo(**entry) for entry in entries)
    )


def _slo_faults(entry: Mapping[str, Any]) -> list[str]:
    faults: list[str] = []
    _check(faults, entry, "name", lambda v: _is_text(v) and _NAME.fullmatch(v), "lower-case-words")
    _check(faults, entry, "title", _is_text, "a sentence that says what is good")
    _check(
        faults,
        entry,
        "objective",
        lambda v: _is_number(v) and 0 < v < 1,
        "a share between 0 and 1, such as 0.999",
    )
    _check(faults, entry, "kind", lambda v: v in KINDS, f"one of {', '.join(KINDS)}")
    _check(faults, entry, "metric", _is_text, "a histogram's name without its suffix")
    _check(faults, entry, "selector", _is_text, 'label matchers, such as job="yardstick-api"')
    _check(
        faults, entry, "minimum_bad_events", lambda v: isinstance(v, int) and v > 1, "a whole number above 1"
    )
    known = {"name", "title", "objective", "kind", "metric", "selector", "minimum_bad_events"}
    if entry.get("kind") == "availability":
        known.add("bad_selector")
        _check(faults, entry, "bad_selector", _is_text, 'label matchers, such as status=~"5.."')
    else:
        known.add("threshold_seconds")
        _check(faults, entry, "threshold_seconds", lambda v: _is_number(v) and v > 0, "seconds above 0")
    if entry.get("kind") in KINDS:
        faults += [f"{field}: unknown for this kind" for field in sorted(set(map(str, entry)) - known)]
    return faults


def _check(
    faults: list[str], entry: Mapping[str, Any], field: str, good: Callable[[Any], object], wanted: str
) -> None:
    if field not in entry:
        faults.append(f"{field}: missing; wanted {wanted}")
    elif not good(entry[field]):
        faults.append(f"{field}: {entry[field]!r} is wrong; wanted {wanted}")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
