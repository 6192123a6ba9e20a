"""The rules made from slo.yaml; what they do over time is proven by promtool in alerts/tests."""

from dataclasses import replace
from pathlib import Path

import pytest

from alerts import build
from alerts.expressions import bucket, error_ratio, metric_names
from alerts.slo import SLO_FILE, SloFileError, load

WINDOWS = {"5m", "30m", "1h", "2h", "6h", "1d", "3d"}


def test_the_committed_rules_are_what_the_objectives_give() -> None:
    assert build.build(check=True) is None


def test_check_tells_of_a_changed_and_of_a_missing_file(tmp_path: Path) -> None:
    output = tmp_path / "slo.yaml"
    assert "Run: make alerts" in str(build.build(check=True, output=output))
    assert not output.exists()
    build.build(check=False, output=output)
    assert build.build(check=True, output=output) is None
    output.write_text(output.read_text().replace("14.4", "15"))
    assert "Run: make alerts" in str(build.build(check=True, output=output))


def test_a_changed_objective_makes_the_committed_rules_stale(tmp_path: Path) -> None:
    changed = tmp_path / "slo.yaml"
    changed.write_text(SLO_FILE.read_text().replace("0.999", "0.995"))
    assert "Run: make alerts" in str(build.build(check=True, slo_file=changed))


def test_every_objective_has_every_window_and_every_burn() -> None:
    groups = build.rules(load())["groups"]
    made = [rule for group in groups for rule in group["rules"]]
    for slo in load().slos:
        ratios = {
            rule["record"].removeprefix("slo:error_ratio:rate")
            for rule in made
            if rule.get("record", "").startswith("slo:error_ratio") and rule["labels"]["slo"] == slo.name
        }
        assert ratios == WINDOWS
        burns = {
            (rule["labels"]["severity"], rule["labels"]["window"])
            for rule in made
            if rule.get("alert") == build.alert_name(slo)
        }
        assert burns == {("page", "1h"), ("page", "6h"), ("ticket", "1d"), ("ticket", "3d")}


def test_every_series_that_an_alert_reads_is_recorded() -> None:
    made = [rule for group in build.rules(load())["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in made if "record" in rule}
    read = set().union(*(metric_names(rule["expr"]) for rule in made if "alert" in rule))
    assert read
    assert read <= recorded


def test_an_objective_whose_page_could_never_fire_is_refused() -> None:
    slos = load()
    loose = replace(slos, slos=(replace(slos.slos[0], objective=0.93),))
    with pytest.raises(SloFileError, match="could never fire"):
        build.rules(loose)


@pytest.mark.parametrize(("seconds", "matcher"), [(0.25, 'le="0.25"'), (30, 'le="30.0"'), (1, 'le="1.0"')])
def test_buckets_are_named_as_prometheus_3_stores_them(seconds: float, matcher: str) -> None:
    assert bucket(replace(load().named("api-latency"), threshold_seconds=seconds)) == matcher


def test_a_faulty_file_ends_the_command_with_one_and_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty = tmp_path / "slo.yaml"
    faulty.write_text("service: yardstick\n")
    monkeypatch.setattr(build, "build", lambda *, check: build.render(load(faulty)))
    assert build.main(["--check"]) == 1
    assert "slos: must list at least one objective" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("expr", "names"),
    [
        ("vector(1)", set()),
        ("up == 0", {"up"}),
        ('absent(up{job="a"}) or absent(up{job="b"})', {"up"}),
        ('sum by (le, job) (rate(a_bucket{le="0.5"}[5m]))', {"a_bucket"}),
        ("a_total / on (job) group_left (x) b_total", {"a_total", "b_total"}),
        ('slo:ratio:rate1h{slo="x"} > 14.4 * 0.001 and c offset 5m', {"slo:ratio:rate1h", "c"}),
        ('label_replace(d, "a", "$1", "b", "(.*)")', {"d"}),
        ("max_over_time(e[1h:5m]) unless bool_metric > bool 1e3", {"e", "bool_metric"}),
    ],
)
def test_metric_names_are_found_in_an_expression(expr: str, names: set[str]) -> None:
    assert metric_names(expr) == names


def test_an_expression_reads_only_the_objective_s_own_metric() -> None:
    slo = load().named("job-freshness")
    assert metric_names(error_ratio(slo, "5m")) == {f"{slo.metric}_bucket", f"{slo.metric}_count"}
