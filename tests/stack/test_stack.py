"""The stack as a whole: every target scraped, rules loaded, every dashboard query answered."""

import os

import pytest
import yaml

from alerts.build import metrics_used as metrics_in_rules
from compose.components import COMPONENTS
from compose.paths import ROOT
from dashboards.queries import metrics_used as metrics_on_dashboards
from dashboards.run import run_queries
from tests.live import Live, eventually

pytestmark = pytest.mark.stack


def rule_names(of: str) -> set[str]:
    """The recording and alert rules that the repository holds for Prometheus or Loki."""
    groups = [
        group
        for file in (ROOT / "alerts" / of).glob("*.yaml")
        for group in yaml.safe_load(file.read_text())["groups"]
    ]
    return {rule.get("alert") or rule["record"] for group in groups for rule in group["rules"]}


def test_every_target_is_up(live: Live) -> None:
    table = {one.name: one.metrics.job for one in COMPONENTS if one.metrics and one.belongs(os.environ)}
    # What is missing is no target of plain processes, and one that is down of containers.
    absent = {job for name, job in table.items() if name in live.missing}
    wanted = {job: "up" for job in table.values() if job not in absent}

    def health() -> dict[str, str]:
        targets = live.http.get(f"{live.url('prometheus')}/api/v1/targets").json()["data"]["activeTargets"]
        targets.sort(key=lambda target: target["health"] != "up")  # one that is down stands for its job
        found = {target["labels"]["job"]: target["lastError"] or target["health"] for target in targets}
        return {job: said for job, said in found.items() if job not in absent}

    try:
        eventually(lambda: health() == wanted, what="every target up, and no other")
    except AssertionError as error:
        raise AssertionError(f"{error}; {health()}, not {wanted}") from None


def test_the_ruler_lists_the_logql_alert(live: Live) -> None:
    def names() -> set[str]:
        answer = live.http.get(f"{live.url('loki')}/prometheus/api/v1/rules").json()
        return {rule["name"] for group in answer["data"]["groups"] for rule in group["rules"]}

    assert "YardstickErrorLogRate" in rule_names("loki")
    eventually(lambda: names() == rule_names("loki"), what="every rule of the repository in Loki's ruler")


def test_prometheus_has_loaded_the_rules_without_an_error(live: Live) -> None:
    def rules() -> list[dict[str, str]]:
        groups = live.http.get(f"{live.url('prometheus')}/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    # The slowest group is evaluated every 2 minutes, and its rules are "unknown" until then.
    eventually(
        lambda: rules() and all(rule["health"] == "ok" for rule in rules()), within=180, what="healthy rules"
    )
    assert {rule["name"] for rule in rules()} == rule_names("prometheus")


def test_the_watchdog_reaches_alertmanager(live: Live) -> None:
    def firing() -> set[str]:
        answer = live.http.get(f"{live.url('alertmanager')}/api/v2/alerts").json()
        return {alert["labels"]["alertname"] for alert in answer}

    eventually(lambda: "YardstickWatchdog" in firing(), within=120, what="the watchdog in Alertmanager")


def test_every_metric_that_rules_and_dashboards_name_exists(live: Live) -> None:
    live.settled(live.create_transaction()[0]["id"])
    live.need("tempo")  # it makes some of them

    def missing() -> set[str]:
        names = live.http.get(f"{live.url('prometheus')}/api/v1/label/__name__/values").json()["data"]
        return (metrics_in_rules() | metrics_on_dashboards()) - set(names)

    eventually(lambda: not missing(), within=120, what="every named metric")


def test_every_query_of_every_panel_returns_data(live: Live) -> None:
    live.settled(live.create_transaction()[0]["id"])

    def empty() -> list[str]:
        results = [result for result in run_queries(live.urls) if result.query.datasource not in live.missing]
        assert {result.query.dashboard for result in results} >= {"yardstick-overview", "yardstick-jobs"}
        return [str(result) for result in results if result.error or not result.rows]

    eventually(lambda: not empty(), within=150, every=5, what="data in every panel")
