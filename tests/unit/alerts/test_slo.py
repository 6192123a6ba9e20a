"""slo.yaml: what it says is read as it stands, and what is wrong with it is said in full."""

from pathlib import Path

import pytest
import yaml

from alerts.slo import SLO_FILE, SloFileError, load

GOOD = yaml.safe_load(SLO_FILE.read_text())


def written(folder: Path, content: object) -> Path:
    path = folder / "slo.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def changed(field: str, value: object, *, position: int = 0) -> dict[str, object]:
    content = yaml.safe_load(SLO_FILE.read_text())
    if value is None:
        del content["slos"][position][field]
    else:
        content["slos"][position][field] = value
    return content  # type: ignore[no-any-return]


def test_the_committed_objectives_are_the_promised_ones() -> None:
    slos = load()
    assert (slos.service, slos.window_days) == ("yardstick", 30)
    assert {(s.name, s.objective, s.kind, s.threshold_seconds) for s in slos.slos} == {
        ("api-availability", 0.999, "availability", None),
        ("api-latency", 0.99, "latency", 0.25),
        ("job-freshness", 0.99, "freshness", 30),
    }
    assert slos.named("api-availability").error_budget == 0.001


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("objective", None, "objective: missing; wanted a share between 0 and 1"),
        ("objective", 1.5, "objective: 1.5 is wrong; wanted a share between 0 and 1"),
        ("objective", 1, "objective: 1 is wrong"),
        ("objective", 0, "objective: 0 is wrong"),
        ("objective", True, "objective: True is wrong"),
        ("objective", "99.9 %", "objective: '99.9 %' is wrong"),
        ("kind", "throughput", "kind: 'throughput' is wrong; wanted one of availability, latency, freshness"),
        ("name", "API availability", "name: 'API availability' is wrong"),
        ("title", " ", "title: ' ' is wrong"),
        ("minimum_bad_events", 1, "minimum_bad_events: 1 is wrong; wanted a whole number above 1"),
        ("threshold_seconds", 0.5, "threshold_seconds: unknown for this kind"),
        ("bad_selector", None, "bad_selector: missing"),
        ("objektive", 0.9, "objektive: unknown for this kind"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_wanted(
    tmp_path: Path, field: str, value: object, said: str
) -> None:
    with pytest.raises(SloFileError) as error:
        load(written(tmp_path, changed(field, value)))
    assert said in str(error.value)
    assert "slos[0]" in str(error.value)


@pytest.mark.parametrize(("value", "said"), [(None, "missing; wanted seconds above 0"), (-1, "-1 is wrong")])
def test_a_latency_objective_needs_its_threshold(tmp_path: Path, value: object, said: str) -> None:
    with pytest.raises(SloFileError, match=rf"slos\[1\] \(api-latency\): threshold_seconds: {said}"):
        load(written(tmp_path, changed("threshold_seconds", value, position=1)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "must be a mapping with service, team, window and slos; it holds None"),
        ("- one\n- two\n", "must be a mapping"),
        ("slos: [\n", "cannot be read as YAML"),
        (b"\xff\xfe\x00".decode("latin-1"), "cannot be read as YAML"),
        (GOOD | {"slos": []}, "slos: must list at least one objective"),
        (GOOD | {"slos": ["fast"]}, "slos[0]: must be a mapping, not 'fast'"),
        (GOOD | {"window": "a month"}, "window: 'a month' is wrong; wanted days, such as 30d"),
        (GOOD | {"slos": GOOD["slos"] + GOOD["slos"][:1]}, "slos: the name api-availability stands twice"),
    ],
)
def test_a_file_that_is_no_list_of_objectives_is_refused(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(SloFileError) as error:
        load(written(tmp_path, content))
    assert said in str(error.value)


def test_a_missing_file_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SloFileError, match=r"none\.yaml: cannot be read"):
        load(tmp_path / "none.yaml")


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    content = changed("objective", 2)
    content["service"] = ""
    with pytest.raises(SloFileError) as error:
        load(written(tmp_path, content))
    assert len(str(error.value).splitlines()) == 2
