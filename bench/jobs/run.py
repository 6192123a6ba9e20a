"""The whole run: every contender once, in turn, round after round, beside the same servers."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import redis
from pydantic import TypeAdapter

from bench.jobs import outbox
from bench.jobs.cell import Plan, Turn, VoidError, drain, waits
from bench.jobs.contender import Work
from bench.jobs.figures import Cell, Row, Target, confidence, summary, targets
from bench.jobs.table import DATABASE, FILES, BenchError, Entry, lacking
from compose.native import Stack
from loadtest.machine import machine

_WORKS: tuple[Work, ...] = ("noop", "io")
_STARTS_SECONDS = 5.0
_USUAL_RATE = 2_000.0


@dataclass(frozen=True)
class Result:
    """A run with all that one has to know to judge it."""

    started: str
    rounds: int
    plan: Plan
    machine: dict[str, str]
    settings: dict[str, str]
    versions: dict[str, dict[str, str]]
    cells: list[Cell]
    rows: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def confidence(self) -> float:
        return confidence(self.rounds)

    @property
    def void(self) -> list[str]:
        return [f"{row.contender}: {why}" for row in self.rows for why in row.void]

    def document(self) -> dict[str, Any]:
        """As JSON is made of it."""
        return {"suite": "jobs", **asdict(self), "confidence": self.confidence}

    @classmethod
    def of(cls, text: str) -> "Result":
        """A run as it was written down. Raises ValueError."""
        return TypeAdapter(cls).validate_json(text)


def execute(entries: Sequence[Entry], rounds: int, plan: Plan, told: Callable[[Cell], None]) -> Result:
    """Measure `entries` in turn, `rounds` times, and sum up; `told` hears of each as it is done.

    What is not installed on this machine is left out, and said to be.

    Raises:
        BenchError: none of them is installed.
        compose.model.StackError: a server does not start.
    """
    left_out = {entry.name: why for entry in entries if (why := lacking(entry))}
    entries = [entry for entry in entries if entry.name not in left_out]
    if not entries:
        raise BenchError("; ".join(f"{name}: {why}" for name, why in left_out.items()))
    started = datetime.now(UTC)
    versions = {entry.name: entry.versions() for entry in entries}
    load = psutil.getloadavg()[0]
    cells: list[Cell] = []
    servers = sorted(set[str]().union(*(entry.servers for entry in entries)))
    with tempfile.TemporaryDirectory(prefix="yardstick-bench-") as name:
        folder = Path(name)
        with Stack(folder / "stack", only=servers) as stack:
            about = {
                **machine(),
                **_server_versions(stack),
                "load before the run": f"{load:.2f} (mean number of processes that ran or wanted to)",
            }
            brokers = {**stack.endpoints(), FILES: str(folder / FILES)}
            if DATABASE in servers:
                outbox.prepare(brokers[DATABASE])
            for number in range(1, rounds + 1):
                for place, entry in enumerate(entries):
                    _empty(brokers)
                    database = brokers[DATABASE] if entry.outbox else ""
                    turn = Turn(entry, brokers[entry.broker], plan, folder / f"{number}-{place}", database)
                    cell = measure(number, turn)
                    cells.append(cell)
                    told(cell)
    rows = summary(entries, cells)
    return Result(
        started=started.isoformat(timespec="seconds"),
        rounds=rounds,
        plan=plan,
        machine=about,
        settings={entry.name: entry.settings for entry in entries},
        versions=versions,
        cells=cells,
        rows=rows,
        targets=targets(rows),
        left_out=left_out,
    )


def estimate(contenders: int, rounds: int, plan: Plan) -> float:
    """About how many seconds a run takes on two quiet cores, without the start of its servers.

    Each turn starts five processes. Shares are such that filling and both drains take what three times the
    plan's jobs take at the usual rate.
    """
    turn = _STARTS_SECONDS + 3 * plan.jobs / _USUAL_RATE + plan.seconds + 3 * plan.settle
    return contenders * rounds * turn


def measure(number: int, turn: Turn) -> Cell:
    """One contender's part of one round; every step has a queue and a folder of its own."""
    cell = Cell(number, turn.entry.name)

    def step(name: str) -> Turn:
        return replace(turn, folder=turn.folder.with_name(f"{turn.folder.name}-{name}"))

    for work in _WORKS:
        try:
            drained = drain(step(work), work)
        except VoidError as error:
            cell.void[work] = str(error)
            continue
        cell.values[work] = drained.rate
        if work == "noop":
            cell.values["enqueue"] = drained.enqueue_rate
    try:
        waited = waits(step("wait"))
    except VoidError as error:
        cell.void["wait"] = str(error)
    else:
        cell.values.update(wait_p50=waited.p50, wait_p99=waited.p99, late_p99=waited.late_p99)
    return cell


def _empty(brokers: dict[str, str]) -> None:
    """What one contender left behind is no load for the next."""
    if "redis" in brokers:
        with redis.Redis.from_url(brokers["redis"]) as client:
            client.flushall()


def _server_versions(stack: Stack) -> dict[str, str]:
    return {
        f"{one.component.name} (server)": one.program.version or "unknown"
        for one in stack.status()
        if one.wanted and not one.component.one_shot
    }
