"""Every query of every panel as data, read from the committed JSON: what Grafana would run."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alerts.expressions import metric_names
from dashboards.build import JSON
from dashboards.kit import LOKI, PROMETHEUS, TEMPO

# What Grafana itself would put in, for fifteen minutes shown on a wide screen and a scrape every 5 s.
MACROS = {"__rate_interval": "1m", "__range": "15m", "__interval": "15s", "__auto": "1m"}
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


@dataclass(frozen=True)
class PanelQuery:
    """One query, ready to run; `text` is PromQL, LogQL or TraceQL, as the data source's uid says."""

    dashboard: str
    panel: str
    datasource: str
    text: str
    instant: bool
    limit: int


def read_queries(directory: Path = JSON) -> list[PanelQuery]:
    """The queries of all dashboards with their variables filled in: each choice with all its values."""
    boards = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(directory.glob("*.json"))]
    return [query for board in boards for query in _queries_of(board)]


def metrics_used(directory: Path = JSON) -> set[str]:
    """Every metric that a panel reads from Prometheus, recorded ones among them."""
    asked = [query.text for query in read_queries(directory) if query.datasource == PROMETHEUS]
    return set().union(*(metric_names(text) for text in asked))


def panels_of(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The panels of a dashboard's JSON, those in collapsed rows too; rows themselves are left out."""
    for panel in board["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels", [])
        else:
            yield panel


def _queries_of(board: dict[str, Any]) -> Iterator[PanelQuery]:
    values = MACROS | {choice["name"]: choice["allValue"] for choice in board["templating"]["list"]}
    for panel in panels_of(board):
        for target in panel["targets"]:
            uid = target["datasource"]["uid"]
            text = target[{PROMETHEUS: "expr", LOKI: "expr", TEMPO: "query"}[uid]]
            yield PanelQuery(
                dashboard=board["uid"],
                panel=panel["title"],
                datasource=uid,
                text=_VARIABLE.sub(lambda found: values[found[1] or found[2]], text),
                instant=target.get("instant", False),
                limit=target.get("limit") or target.get("maxLines") or 0,
            )
