import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from loadtest import scenario, slo
from loadtest.errors import UsageError

GOOD: dict[str, Any] = {
    "title": "t",
    "journeys": "loadtest.scenarios.transactions",
    "mix": {"browse": 1},
    "model": {"kind": "closed", "users": 2, "duration_seconds": 10},
}


def write(folder: Path, content: Any, name: str = "own.yaml") -> str:
    path = folder / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return str(path)


def test_every_shipped_scenario_is_valid_and_fits_the_objectives() -> None:
    assert {"smoke", "demo", "average"} <= set(scenario.known())
    for name in scenario.known():
        one = scenario.load(name)
        assert one.name == name
        assert one.mix.keys() <= {"browse", "pay"}


def test_a_scenario_file_is_named_after_itself_and_finds_journeys_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    one = scenario.load(write(tmp_path, {**GOOD, "journeys": "mine.py"}))
    assert one.name == "own"
    assert one.journeys == str(tmp_path / "mine.py")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"model": {**GOOD["model"], "duration_seconds": 0}},
            "model.duration_seconds: .* greater than or equal to 1",
        ),
        ({"model": {**GOOD["model"], "users": -1}}, r"model.users: .* \(is -1\)"),
        ({"model": {**GOOD["model"], "kind": "open"}}, "model.kind"),
        ({"model": {**GOOD["model"], "ramp_seconds": 10}}, "shorter than duration_seconds"),
        ({"mix": {"browse": 0}}, "at least one journey"),
        ({"mix": {}}, "at least one journey"),
        ({"think_seconds": [2, 1]}, "the shorter time comes first"),
        ({"journeys": "no.such.module"}, "no module 'no.such.module'"),
        ({"journeys": "absent.py"}, "there is no file"),
        ({"treshold": []}, "treshold: Extra inputs"),
        ({"thresholds": [{"percentile": 95}]}, "go together"),
        ({"thresholds": [{"rate_over": 1, "error_share_at_most": 0.1}]}, "one of under_ms"),
        ({"slos": []}, "nothing to pass"),
        ({"ready_path": "health"}, "ready_path"),
    ],
)
def test_a_wrong_scenario_is_refused_with_its_place(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        scenario.load(write(tmp_path, {**GOOD, **change}))
    assert "own.yaml" in str(caught.value)


@pytest.mark.parametrize("content", ["model: {kind: closed", "just words", "", "[1, 2]", "\x00"])
def test_what_is_no_mapping_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match=r"own\.yaml"):
        scenario.load(write(tmp_path, content))


def test_the_guides_scenarios_are_valid(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[3] / "docs" / "load-testing.md").read_text()
    (tmp_path / "shop.py").write_text("")
    examples = re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL)
    assert len(examples) == 2
    for example in examples:
        scenario.load(write(tmp_path, example))


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no scenario 'dmeo': there are average, demo, smoke"):
        scenario.load("dmeo")
    with pytest.raises(UsageError, match="no scenario file"):
        scenario.load(str(tmp_path / "absent.yaml"))


def test_resizing_shrinks_ramp_and_warm_up_with_the_duration() -> None:
    small = scenario.load("demo").resized(users=3, duration=6)
    assert (small.model.users, small.model.duration_seconds) == (3, 6)
    assert (small.model.ramp_seconds, small.model.warmup_seconds) == (0.5, 0.5)
    longer = scenario.load("demo").resized(users=None, duration=600)
    assert longer.model.ramp_seconds == 5
    with pytest.raises(UsageError, match="duration_seconds"):
        scenario.load("demo").resized(users=None, duration=0)


SLO = {"name": "a", "objective": 0.99, "kind": "latency", "threshold_seconds": 0.2, "metric": "some_seconds"}


def test_the_projects_own_objectives_can_be_judged() -> None:
    assert {"availability", "latency", "freshness"} == {one.kind for one in slo.load(slo.SLO_FILE)}


def test_objectives_are_picked_by_name(tmp_path: Path) -> None:
    path = Path(write(tmp_path, {"slos": [SLO, {**SLO, "name": "b"}]}))
    assert [one.name for one in slo.load(path)] == ["a", "b"]
    assert [one.name for one in slo.load(path, ["b"])] == ["b"]
    with pytest.raises(UsageError, match="has no SLO c; it has a, b"):
        slo.load(path, ["c"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"slos": []}, "slos: "),
        ({}, "slos: Field required"),
        ("slos: [", "cannot be read as YAML"),
        ({"slos": [{**SLO, "objective": 99}]}, r"slos.0.objective: .*less than 1 \(is 99\)"),
        ({"slos": [{**SLO, "kind": "speed"}]}, "slos.0.kind"),
        ({"slos": [{**SLO, "threshold_seconds": None}]}, "needs threshold_seconds"),
    ],
)
def test_a_wrong_slo_file_is_refused_with_its_place(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        slo.load(Path(write(tmp_path, content)))


def test_a_missing_slo_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no SLO file"):
        slo.load(tmp_path / "slo.yaml")
