"""From rounds to figures: the median of each measure with its spread, and ratios within a round."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.jobs.table import BASELINE, Entry

RATES = ("noop", "io", "enqueue")
WAITS = ("wait_p50", "wait_p99")
MEASURES = (*RATES, *WAITS)
"""Jobs a second (no-op, 10 ms of I/O, enqueued), and milliseconds from the enqueueing to the start."""

TIMES_BASELINE = 5.0
SHARE_OF_BEST_PEER = 0.8


@dataclass(frozen=True, slots=True)
class Cell:
    """What one contender did in one round: a value by measure, or why there is none, by part of the run."""

    round: int
    contender: str
    values: dict[str, float] = field(default_factory=dict)
    void: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, the lowest and the highest of them, and how many there were."""

    median: float
    low: float
    high: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Row:
    """A contender's figures. A ratio is taken within each round and then summed up, so that what slows the
    machine for a while slows both sides of it."""

    contender: str
    ours: bool
    measures: dict[str, Spread]
    to_baseline: dict[str, Spread]
    to_best_peer: dict[str, Spread]
    void: list[str]
    outbox: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that the project set out to reach, and what was measured."""

    text: str
    measured: float
    met: bool


def summary(entries: Sequence[Entry], cells: Sequence[Cell]) -> list[Row]:
    """A row for each contender, in the order of the table."""
    peers = {entry.name for entry in entries if not entry.ours}
    return [_row(entry, cells, peers) for entry in entries]


def targets(rows: Sequence[Row]) -> list[Target]:
    """What the project is to reach on no-op jobs, and what it does; empty without an engine of ours.

    The outbox belongs to it: rows with it are judged, and where there are none, the text says so.
    """
    ours = [row for row in rows if row.ours and "noop" in row.measures]
    ours = [row for row in ours if row.outbox] or ours
    found = [
        _target(row, "", row.to_baseline, f"{TIMES_BASELINE:g} times plain arq's default")
        for row in ours
        if "redis" in row.contender and "noop" in row.to_baseline
    ]
    if ours:
        fastest = max(ours, key=lambda row: row.measures["noop"].median)
        if "noop" in fastest.to_best_peer:
            text = f"{SHARE_OF_BEST_PEER:g} of the best peer"
            found.append(_target(fastest, ", the fastest engine", fastest.to_best_peer, text))
    return found


def _target(row: Row, what: str, ratios: dict[str, Spread], text: str) -> Target:
    least = TIMES_BASELINE if ratios is row.to_baseline else SHARE_OF_BEST_PEER
    without = "" if row.outbox else " (without the outbox)"
    ratio = ratios["noop"].median
    return Target(f"{row.contender}{what}{without}: at least {text}", ratio, ratio >= least)


def confidence(rounds: int) -> float:
    """How sure it is that the range of so many independent rounds holds the true median, as a share."""
    return 1 - 2 ** (1 - rounds) if rounds > 1 else 0.0


def _row(entry: Entry, cells: Sequence[Cell], peers: set[str]) -> Row:
    own = [cell for cell in cells if cell.contender == entry.name]

    def baseline(cell: Cell, measure: str) -> float | None:
        values = [
            other.values[measure] for other in _beside(cell, cells, {BASELINE}) if measure in other.values
        ]
        return values[0] if values else None

    def best_peer(cell: Cell, measure: str) -> float | None:
        return max(
            (other.values[measure] for other in _beside(cell, cells, peers) if measure in other.values),
            default=None,
        )

    return Row(
        contender=entry.name,
        ours=entry.ours,
        measures=_spreads(own, MEASURES, lambda _cell, _measure: 1.0),
        to_baseline=_spreads(own, RATES, baseline),
        to_best_peer=_spreads(own, RATES, best_peer),
        outbox=entry.outbox,
        void=[f"round {cell.round}, {part}: {why}" for cell in own for part, why in cell.void.items()],
    )


def _beside(cell: Cell, cells: Sequence[Cell], names: set[str]) -> list[Cell]:
    return [other for other in cells if other.round == cell.round and other.contender in names]


def _spreads(
    cells: Sequence[Cell], measures: Sequence[str], divisor: Callable[[Cell, str], float | None]
) -> dict[str, Spread]:
    found = {}
    for measure in measures:
        values = []
        for cell in cells:
            by = divisor(cell, measure)
            if measure in cell.values and by:
                values.append(cell.values[measure] / by)
        if values:
            found[measure] = Spread(statistics.median(values), min(values), max(values), len(values))
    return found
