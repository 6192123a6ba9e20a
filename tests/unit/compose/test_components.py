"""The table: whole, free of contradictions, and in step with the configuration files."""

import re
from pathlib import Path

import pytest

from compose import binaries
from compose.components import COMPONENTS
from compose.configure import Setting, environment
from compose.graph import by_name
from compose.model import Component, Http
from compose.native import Stack
from compose.paths import CONFIG, ROOT, Paths
from compose.secret import NAMES

SECRETS = {f"{name}_password": f"secret-{name}" for name in NAMES}
# Settings that a user may give in the environment; the table leaves them alone.
OPTIONAL = {"HOST_NAME", "TRACES_KEPT_PERCENT", "OTELCOL_LOG_LEVEL"}


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    ports = {component.name: dict(component.ports) for component in COMPONENTS}
    return Setting(Paths.of(tmp_path), ports, SECRETS, frozenset(by_name(COMPONENTS)))


def test_usual_ports_are_all_different() -> None:
    ports = [port for component in COMPONENTS for port in component.ports.values()]
    assert len(set(ports)) == len(ports)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda one: one.name)
def test_every_template_can_be_filled_and_no_argument_holds_a_secret(
    component: Component, setting: Setting
) -> None:
    program = Path("/opt/bin/program")
    arguments = [setting.fill(part, component.name, program=program) for part in component.arguments]
    assert not any("secret" in argument.replace(str(setting.paths.secrets), "") for argument in arguments)
    environment(component, setting)
    for template in component.endpoints.values():
        setting.fill(template, component.name, secrets=True)


@pytest.mark.parametrize("component", COMPONENTS, ids=lambda one: one.name)
def test_what_it_refers_to_exists(component: Component) -> None:
    known = by_name(COMPONENTS)
    assert {*component.needs, *component.uses} <= set(known)
    assert {var.when for var in component.environment} <= {None, *known}
    assert component.show is None or component.show in component.endpoints
    assert component.program in {"python", "postgres", "redis", "rabbitmq", "epmd", *binaries.PROGRAMS}
    assert component.config is None or (CONFIG / component.config).is_dir()
    assert component.rules is None or list((ROOT / component.rules).glob("*.yaml"))
    if isinstance(component.ready, Http):
        assert component.ready.port in component.ports
    if component.metrics:
        assert component.metrics.port in component.ports


def test_the_service_needs_the_stores_alone() -> None:
    required = {component.name for component in COMPONENTS if component.required}
    assert required == {"postgres", "redis", "migrate", "api", "worker", "scheduler"}


@pytest.mark.parametrize(("engine", "more"), [("redis", set()), ("rabbitmq", {"epmd", "rabbitmq"})])
def test_rabbitmq_is_part_of_the_stack_only_when_the_queue_asks_for_it(
    engine: str, more: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUEUE_ENGINE", engine)
    always = {component.name for component in COMPONENTS if component.when is None}
    assert {component.name for component in Stack(tmp_path).selected} == always | more
    assert {component.name for component in Stack(tmp_path, only=("rabbitmq",)).selected} == {
        "epmd",
        "rabbitmq",
    }


def test_every_component_that_has_metrics_is_scraped_under_its_own_job() -> None:
    jobs = {component.metrics.job for component in COMPONENTS if component.metrics}
    backends = {"prometheus", "alertmanager", "loki", "tempo", "otelcol", "grafana", "rabbitmq"}
    assert jobs == backends | {"yardstick-api", "yardstick-worker", "yardstick-scheduler"}


@pytest.mark.parametrize("name", ["loki", "tempo", "otelcol"])
def test_every_variable_of_a_configuration_file_is_set_by_the_table_and_the_other_way_round(
    name: str,
) -> None:
    text = (CONFIG / name / f"{name}.yaml").read_text()
    named = set(re.findall(r"\$\{(?:env:)?([A-Z_]+):-", text))
    unguarded = set(re.findall(r"\$\{(?:env:)?([A-Z_]+)\}", text))
    assert unguarded == set(), "a variable without a default"
    table = {var.name for var in by_name(COMPONENTS)[name].environment} - {"GOMEMLIMIT"}
    assert named - OPTIONAL == table


def test_grafana_gets_every_address_that_its_provisioning_names() -> None:
    texts = [file.read_text() for file in (CONFIG / "grafana" / "provisioning").rglob("*.yaml")]
    named = {name for text in texts for name in re.findall(r"(?<!\$)\$([A-Z_]+)", text)}
    assert named <= {var.name for var in by_name(COMPONENTS)["grafana"].environment}
    assert named == {"PROMETHEUS_URL", "LOKI_URL", "TEMPO_URL", "ALERTMANAGER_URL", "DASHBOARDS"}


def test_without_the_collector_the_service_exports_no_traces(setting: Setting) -> None:
    api = by_name(COMPONENTS)["api"]
    assert environment(api, setting)["TELEMETRY_OTLP_ENDPOINT"] == "http://127.0.0.1:4317"
    alone = Setting(setting.paths, setting.ports, SECRETS, frozenset({"api"}))
    assert environment(api, alone)["TELEMETRY_OTLP_ENDPOINT"] == ""


def test_a_secret_in_an_argument_is_refused(setting: Setting) -> None:
    with pytest.raises(KeyError, match="redis_password"):
        setting.fill("{redis_password}", "redis")
    assert setting.fill("{redis_password}", "redis", secrets=True) == "secret-redis"
