"""The generated dashboards: current, complete in every panel, and fed from slo.yaml."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alerts.slo import load
from dashboards import build
from dashboards.queries import panels_of

BOARDS = {name: json.loads(text) for name, text in build.render(load()).items()}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in BOARDS.items()
    for panel in panels_of(board)
]


def test_the_committed_files_are_what_the_code_gives() -> None:
    assert build.build(check=True) == []


def test_check_names_changed_missing_and_left_over_files(tmp_path: Path) -> None:
    assert build.build(check=True, directory=tmp_path) == [
        f"dashboards/json/yardstick-{name}.json is not what the code gives. Run: make dashboards"
        for name in ("jobs", "overview")
    ]
    (tmp_path / "old.json").write_text("{}")
    build.build(check=False, directory=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"yardstick-jobs.json", "yardstick-overview.json"}
    assert build.build(check=True, directory=tmp_path) == []
    (tmp_path / "old.json").write_text("{}")
    assert "dashboards/json/old.json" in build.build(check=True, directory=tmp_path)[0]


def test_rendering_twice_gives_the_same_text() -> None:
    assert build.render(load()) == build.render(load())


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_in_what_unit_and_what_is_good(panel: dict[str, Any]) -> None:
    assert " (good: " in panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert panel["gridPos"]["w"] + panel["gridPos"]["x"] <= 24
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == panel["datasource"]["uid"]
        assert target["datasource"]["uid"] in {"prometheus", "loki", "tempo"}


@pytest.mark.parametrize("name", BOARDS)
def test_panels_and_queries_are_numbered_without_doubles_and_do_not_overlap(name: str) -> None:
    panels = BOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    for panel in panels_of(BOARDS[name]):
        letters = [target["refId"] for target in panel["targets"]]
        assert len(set(letters)) == len(letters)


def test_latency_shows_exemplars() -> None:
    latency = next(
        p for p in panels_of(BOARDS["yardstick-overview.json"]) if p["title"].startswith("Time to answer")
    )
    assert [target["exemplar"] for target in latency["targets"]] == [False, False, True]


def test_limits_follow_the_objectives() -> None:
    slos = load()
    stricter = replace(slos, slos=tuple(replace(slo, objective=0.9999) for slo in slos.slos))
    board = json.loads(build.render(stricter)["yardstick-overview.json"])
    kept = [panel for panel in panels_of(board) if panel["title"].endswith("(good: at least 99.99 %)")]
    assert len(kept) == 3
    for panel in kept:
        assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1]["value"] == 0.9999
