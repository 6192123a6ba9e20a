"""The result of campaigns as a table and as JSON."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from tests.faults.kills.campaign import Outcome

COLUMNS = (
    "engine", "kills", "api", "worker", "relay", "aimed", "broker", "postgres", "frozen", "jobs",
    "interrupted", "lost", "twice", "unexpected", "rerun p50", "rerun max", "201/s", "minutes",
)  # fmt: skip

PROPERTY = "campaign"
"""Under which a test records its row, so that it reaches the summary from another process too."""


def row(outcome: Outcome) -> tuple[str, ...]:
    """One campaign, in the order of `COLUMNS`; times in seconds unless named."""
    kills, faults, found = outcome.kills, outcome.faults, outcome.account
    assert found is not None
    last = [recovery.last for recovery in outcome.recovered]
    killed = [sum(n for what, n in kills.items() if what.startswith(k)) for k in ("api", "worker", "relay")]
    cells: list[Any] = [
        outcome.engine, kills.total(), *killed,
        sum(n for what, n in kills.items() if not what.endswith("random")),
        faults["broker"], faults["postgres stop"] + faults["postgres kill"], faults["freeze"],
        found.jobs, outcome.interrupted,
        len(found.lost), len(found.twice), len(found.unexpected) + len(outcome.exits),
        f"{median(last):.2f}" if last else "-", f"{max(last):.2f}" if last else "-",
        f"{outcome.accepted / outcome.load_seconds:.1f}", f"{outcome.seconds / 60:.1f}",
    ]  # fmt: skip
    return tuple(str(cell) for cell in cells)


def table(campaigns: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, of the rows of campaigns."""
    rows = [COLUMNS, *campaigns]
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(COLUMNS))]
    lines = [
        "| " + " | ".join(c.rjust(w) for c, w in zip(cells, widths, strict=True)) + " |" for cells in rows
    ]
    return [lines[0], "|" + "|".join("-" * (w + 1) + ":" for w in widths) + "|", *lines[1:]]


def write(outcome: Outcome, folder: Path) -> Path:
    """Everything that is known of a campaign, as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"kills-{outcome.engine}.json"
    path.write_text(json.dumps(vars(outcome), default=dataclasses.asdict, indent=1) + "\n")
    return path
