"""Grafana's provisioning: one click from each signal to the others."""

from typing import Any

import pytest
import yaml

from compose.paths import CONFIG


@pytest.fixture
def sources() -> dict[str, dict[str, Any]]:
    file = CONFIG / "grafana" / "provisioning" / "datasources" / "stack.yaml"
    return {source["uid"]: source for source in yaml.safe_load(file.read_text())["datasources"]}


def test_the_datasources_have_the_names_that_dashboards_and_rules_use(sources: dict[str, Any]) -> None:
    assert {uid: source["type"] for uid, source in sources.items()} == {
        name: name for name in ("prometheus", "loki", "tempo", "alertmanager")
    }
    assert [uid for uid, source in sources.items() if source.get("isDefault")] == ["prometheus"]


def test_an_exemplar_leads_to_its_trace(sources: dict[str, Any]) -> None:
    assert sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"] == [
        {"name": "trace_id", "datasourceUid": "tempo"}
    ]


def test_a_log_line_leads_to_its_trace(sources: dict[str, Any]) -> None:
    (field,) = sources["loki"]["jsonData"]["derivedFields"]
    assert (field["matcherType"], field["matcherRegex"], field["datasourceUid"]) == (
        "label",
        "trace_id",
        "tempo",
    )
    assert field["url"] == "$${__value.raw}", "one dollar sign would be taken for the environment"


def test_a_trace_leads_to_its_logs_metrics_and_graph(sources: dict[str, Any]) -> None:
    tempo = sources["tempo"]["jsonData"]
    assert tempo["nodeGraph"]["enabled"]
    assert tempo["serviceMap"]["datasourceUid"] == "prometheus"
    logs = tempo["tracesToLogsV2"]
    assert logs["datasourceUid"] == "loki"
    assert logs["customQuery"]
    assert logs["query"] == '{$${__tags}} | trace_id="$${__trace.traceId}"'
    assert logs["tags"] == [{"key": "service.name", "value": "service_name"}]
    metrics = tempo["tracesToMetrics"]
    assert metrics["datasourceUid"] == "prometheus"
    assert all("$$__tags" in query["query"] for query in metrics["queries"])


def test_alertmanager_is_the_one_of_prometheus(sources: dict[str, Any]) -> None:
    assert sources["alertmanager"]["jsonData"]["implementation"] == "prometheus"
    assert sources["loki"]["jsonData"]["alertmanagerUid"] == "alertmanager"


def test_dashboards_come_from_the_generated_files() -> None:
    file = CONFIG / "grafana" / "provisioning" / "dashboards" / "stack.yaml"
    (provider,) = yaml.safe_load(file.read_text())["providers"]
    assert provider["options"]["path"] == "$DASHBOARDS"
    assert provider["allowUiUpdates"] is False
