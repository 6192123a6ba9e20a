"""Every alert, of Prometheus and of Loki, has its labels, its links and its runbook."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from alerts import verify
from alerts.build import metrics_used
from alerts.expressions import metric_names
from alerts.rules import LOKI_RULES, PROMETHEUS_RULES, RUNBOOKS, Rule, alert_faults, read_rules
from dashboards.build import JSON
from dashboards.queries import metrics_used as metrics_on_dashboards

ALL = read_rules(PROMETHEUS_RULES, LOKI_RULES)
EXPOSED = {
    line
    for line in Path(__file__).with_name("exposed_metrics.txt").read_text().splitlines()
    if line and not line.startswith("#")
}
GOOD = next(rule for rule in ALL if rule.name == "YardstickErrorLogRate")


def test_every_alert_has_its_labels_annotations_and_runbook() -> None:
    assert alert_faults(ALL) == []


def test_the_promised_alerts_are_there() -> None:
    assert {rule.name for rule in ALL if rule.is_alert} == {
        "YardstickApiAvailabilityBurn",
        "YardstickApiLatencyBurn",
        "YardstickJobFreshnessBurn",
        "YardstickComponentDown",
        "YardstickComponentAbsent",
        "YardstickWatchdog",
        "YardstickErrorLogRate",
        "YardstickDeadLetters",
        "YardstickQueueBacklog",
        "YardstickOutboxLag",
        "YardstickBrokerLostJobs",
        "YardstickJobsRefused",
        "YardstickJobsPaused",
        "YardstickScheduleMissed",
    }


def labelled(**labels: str) -> Callable[[Rule], Rule]:
    return lambda rule: replace(rule, labels={**rule.labels, **labels})


def annotated(**annotations: str) -> Callable[[Rule], Rule]:
    return lambda rule: replace(rule, annotations={**rule.annotations, **annotations})


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (labelled(severity="critical"), "label severity must be one of page, ticket, none"),
        (labelled(team=""), "label team is missing"),
        (annotated(summary="{{ $labels.service_name }} fails"), "annotation summary must be there"),
        (annotated(summary=""), "annotation summary must be there"),
        (annotated(description="fails"), "annotation description must be there, and templated"),
        (annotated(runbook_url=""), "must be alerts/runbooks/<file>.md#yardstickerrorlograte"),
        (annotated(runbook_url="alerts/runbooks/none.md#yardstickerrorlograte"), "in none.md"),
        (annotated(dashboard_url="http://grafana/d/x"), "annotation dashboard_url must start with /d/"),
        (lambda rule: replace(rule, name="ErrorLogRate"), "its name must start with Yardstick"),
    ],
)
def test_what_an_alert_lacks_is_named(spoil: Callable[[Rule], Rule], said: str) -> None:
    assert any(said in fault for fault in alert_faults([spoil(GOOD)]))


def test_a_runbook_that_lacks_a_part_and_one_without_an_alert_are_named(tmp_path: Path) -> None:
    text = (RUNBOOKS / "logs.md").read_text().replace("**Impact.**", "")
    (tmp_path / "logs.md").write_text(text + "\n## YardstickGone\n")
    assert alert_faults([GOOD], tmp_path) == [
        "errors.yaml: YardstickErrorLogRate: its runbook has no '**Impact.**'",
        "runbook without an alert: YardstickGone",
    ]


def test_every_dashboard_link_leads_to_a_dashboard() -> None:
    uids = {path.stem for path in JSON.glob("*.json")}
    linked = {rule.annotations["dashboard_url"].removeprefix("/d/") for rule in ALL if rule.is_alert}
    assert linked <= uids


def test_every_metric_that_is_read_is_exposed_or_recorded() -> None:
    recorded = {rule.name for rule in ALL if not rule.is_alert}
    assert metrics_used() <= EXPOSED
    assert metrics_on_dashboards() <= EXPOSED | recorded


def test_the_runbooks_queries_read_what_is_there() -> None:
    text = "\n".join(path.read_text() for path in RUNBOOKS.glob("*.md"))
    queries = [
        line for block in re.findall(r"```promql\n(.*?)```", text, re.DOTALL) for line in block.splitlines()
    ]
    assert len(queries) > 10
    read = set().union(*map(metric_names, queries))
    prometheus_own = {name for name in read if name == "ALERTS" or name.startswith("prometheus_")}
    assert read - prometheus_own <= EXPOSED | {rule.name for rule in ALL if not rule.is_alert}


def test_loki_rules_select_by_a_label_that_the_collector_sets() -> None:
    for rule in read_rules(LOKI_RULES):
        assert "service_namespace=" in rule.expr


def test_verify_passes_and_names_what_it_could_not_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert verify.main() == 0
    assert "not checked: PromQL rules and their tests: promtool cannot be had" in capsys.readouterr().out


def test_verify_fails_when_promtool_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    refusing = tmp_path / "promtool"
    refusing.write_text("#!/bin/sh\necho 'bad rule' >&2\nexit 3\n")
    refusing.chmod(0o755)
    assert [fault.splitlines()[0] for fault in verify.promtool_faults(str(refusing))] == [
        "promtool check rules:",
        "promtool test rules:",
    ]
    monkeypatch.setattr(verify, "faults", lambda: iter(["rules differ"]))
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert verify.main() == 1
    assert "rules differ" in capsys.readouterr().err
