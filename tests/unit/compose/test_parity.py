"""Plain processes and containers are one stack: the same targets, rules, datasources, dashboards in both."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from compose import configure, discovery, docker
from compose.components import COMPONENTS
from compose.configure import Setting, copy_config, write_targets
from compose.effective import ASKED, Config, by_yaml
from compose.graph import by_name
from compose.model import Component
from compose.paths import CONFIG, ROOT, Paths
from compose.ports import HOST
from compose.secret import NAMES
from service.settings.queue import QueueSettings

TABLE = by_name(COMPONENTS)
ENGINES = get_args(QueueSettings.model_fields["engine"].annotation)
CONFIGURED = ("prometheus", "alertmanager", "loki", "tempo", "otelcol", "grafana", "redis")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def native(tmp_path: Path, engine: str) -> Setting:
    """The whole stack as plain processes on the usual ports, with its configuration written."""
    chosen = [one for one in COMPONENTS if one.belongs({"QUEUE_ENGINE": engine})]
    paths = Paths.of(tmp_path / "state")
    paths.make()
    setting = Setting(
        paths,
        {one.name: dict(one.ports) for one in COMPONENTS},
        {f"{name}_password": f"secret-{name}" for name in NAMES},
        frozenset(one.name for one in chosen),
    )
    for component in chosen:
        copy_config(component, setting)
    write_targets(setting, COMPONENTS, paths.config("prometheus") / "targets")
    return setting


@pytest.fixture
def containers(engine: str) -> Config:
    return by_yaml(environment={**ASKED, "QUEUE_ENGINE": engine})


def mounts(service: Mapping[str, Any]) -> Iterator[tuple[Path, Path]]:
    """Host path and container path of everything that the service is given from the checkout."""
    for one in service["volumes"]:
        source, target = (one["source"], one["target"]) if isinstance(one, dict) else str(one).split(":")[:2]
        if source.startswith("."):
            yield (ROOT / "compose" / source).resolve(), Path(target)


def inside(service: Mapping[str, Any], folder: str) -> dict[str, str]:
    """The files that the container sees below a folder, by their path in it."""
    found = {}
    for source, target in mounts(service):
        for file in [source] if source.is_file() else sorted(source.rglob("*")):
            place = target / file.relative_to(source) if source.is_dir() else target
            if file.is_file() and place.is_relative_to(folder):
                found[str(place.relative_to(folder))] = file.read_text("utf-8")
    return found


def outside(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file.read_text("utf-8") for file in folder.rglob("*") if file.is_file()
    }


def jobs(files: Mapping[str, str]) -> set[str]:
    """The jobs that Prometheus has with these files: those of its own file, by the patterns in it."""
    config = yaml.safe_load(files["prometheus.yml"])
    (stack,) = config["scrape_configs"]
    named = {
        target["labels"]["job"]
        for pattern in stack["file_sd_configs"][0]["files"]
        for name, text in files.items()
        if Path(name).match(pattern) and len(Path(name).parts) == len(Path(pattern).parts)
        for target in yaml.safe_load(text)
    }
    for pattern in config["scrape_config_files"]:
        for name, text in files.items():
            if Path(name).match(pattern):
                named |= {job["job_name"] for job in yaml.safe_load(text)["scrape_configs"]}
    return named


def test_prometheus_scrapes_the_same_jobs(native: Setting, containers: Config, engine: str) -> None:
    plain = jobs(outside(native.paths.config("prometheus")))
    assert plain == jobs(inside(containers["services"]["prometheus"], "/etc/prometheus"))
    assert {"prometheus", "yardstick-api", "yardstick-worker", "yardstick-scheduler"} < plain
    assert ("rabbitmq" in plain) is (engine == "rabbitmq")


@pytest.mark.parametrize(
    ("name", "folder"), [("prometheus", "/etc/prometheus/rules"), ("loki", "/etc/loki/rules/fake")]
)
def test_the_rules_are_the_same(native: Setting, containers: Config, name: str, folder: str) -> None:
    plain = outside(native.paths.config(name) / TABLE[name].rules_to)
    assert plain == inside(containers["services"][name], folder)
    groups = [group for text in plain.values() for group in yaml.safe_load(text)["groups"]]
    assert any("alert" in rule for group in groups for rule in group["rules"])


@pytest.mark.parametrize("name", CONFIGURED)
def test_the_configuration_files_are_the_same(native: Setting, containers: Config, name: str) -> None:
    folder = native.paths.config(name)
    plain = {path: text for path, text in outside(folder).items() if not re.match("targets/|rules/", path)}
    seen = {}
    for source, target in mounts(containers["services"][name]):
        if source.is_file() and source.is_relative_to(CONFIG):
            seen[source.name] = source.read_text("utf-8")
        elif source.is_relative_to(CONFIG):
            below = inside(containers["services"][name], str(target))
            seen |= {f"{source.name}/{path}": text for path, text in below.items()}
    if name == "redis":  # the password is the one line that the runner adds
        plain = {path: re.sub(r"requirepass \S+\n", "", text) for path, text in plain.items()}
    assert plain == seen


def addresses(text: str, environment: Mapping[str, str]) -> set[str]:
    """The addresses in a configuration file with its variables filled in."""

    def value(found: re.Match[str]) -> str:
        name, default = found["name"] or found["bare"], found["default"]
        return environment.get(name) or default or ""

    form = r"(?<!\$)\$(?:\{(?:env:)?(?P<name>\w+)(?::-(?P<default>[^}]*))?\}|(?P<bare>[A-Z_]+))"
    return set(re.findall(r"https?://[^\s\"']+", re.sub(form, value, text)))


def by_component(address: str) -> str:
    """An address of this machine as the container of that port has it."""
    ports = {port: one.name for one in COMPONENTS for port in one.ports.values()}
    return re.sub(rf"{re.escape(HOST)}:(\d+)", lambda m: f"{ports[int(m[1])]}:{m[1]}", address)


@pytest.mark.parametrize("name", ["otelcol", "loki", "tempo", "grafana"])
def test_they_talk_to_the_same(native: Setting, containers: Config, name: str) -> None:
    component: Component = TABLE[name]
    plain = configure.environment(component, native)
    given = {key: str(text) for key, text in (containers["services"][name]["environment"] or {}).items()}
    for text in outside(native.paths.config(name)).values():
        of_processes = {by_component(one) for one in addresses(text, plain)}
        assert of_processes == addresses(text, given)


def test_grafana_has_the_same_dashboards(native: Setting, containers: Config) -> None:
    plain = configure.environment(TABLE["grafana"], native)["DASHBOARDS"]
    service = containers["services"]["grafana"]
    dashboards = inside(service, service["environment"]["DASHBOARDS"])
    assert dashboards
    assert dashboards == outside(Path(plain))


def test_a_queue_engine_brings_the_same_with_it(
    containers: Config, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile of the engine's name has what the table ties to the engine; `make up` turns it on."""
    services = containers["services"]
    conditional = {one.name for one in COMPONENTS if one.when == ("QUEUE_ENGINE", engine)} & services.keys()
    assert conditional == {name for name, one in services.items() if engine in one.get("profiles", ())}
    assert all(services[name]["environment"]["QUEUE_ENGINE"] == engine for name in discovery.SCALED)
    for name in conditional:
        assert all(
            services[one]["depends_on"][name] == {"condition": "service_healthy", "required": False}
            for one in discovery.SCALED
        )
    monkeypatch.setenv("QUEUE_ENGINE", engine)
    monkeypatch.delenv("COMPOSE_PROFILES", raising=False)
    monkeypatch.delenv("FILES_ENGINE", raising=False)
    assert docker.Containers()._environment()["COMPOSE_PROFILES"] == engine


def test_every_queue_engine_of_the_service_has_its_targets() -> None:
    assert set(discovery.QUEUES) == set(ENGINES)
