"""The compose file as it takes effect keeps the rules, and each rule fails when it is broken."""

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest

from compose import binaries, discovery, hardening
from compose.components import COMPONENTS
from compose.effective import Config, by_docker, by_yaml
from compose.graph import by_name
from compose.model import StackError
from compose.paths import ROOT

DOCKERFILES = (ROOT / "Dockerfile", ROOT / "compose" / "images" / "otelcol.Dockerfile")


@pytest.fixture(scope="module")
def config() -> Config:
    return by_yaml()


@pytest.fixture(scope="module")
def docker() -> Config:
    found = by_docker()
    if found is None:
        pytest.skip("there is no docker compose here; the files were read without it")
    return found


def test_the_stack_keeps_the_rules(config: Config) -> None:
    assert hardening.faults(config) == []


def test_the_stack_as_docker_reads_it_keeps_the_rules(docker: Config) -> None:
    assert hardening.faults(docker) == []


def test_docker_reads_the_same_out_of_the_files(config: Config, docker: Config) -> None:
    assert config["services"].keys() == docker["services"].keys()
    for name, service in config["services"].items():
        theirs = docker["services"][name]
        for key in ("image", "user", "read_only", "cap_drop", "security_opt", "labels", "command", "restart"):
            assert service.get(key) == theirs.get(key), f"{name}.{key}"
        environment = {key: str(value) for key, value in (service.get("environment") or {}).items()}
        for key, value in (theirs.get("environment") or {}).items():
            # The host's name is the machine's affair.
            assert key == "HOST_NAME" or environment[key] == value, f"{name}.{key}"
        assert set(service.get("networks") or ()) == set(theirs.get("networks") or ())


def _set(service: str, key: str, value: Any) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        config["services"][service][key] = value

    return change


def _without(service: str, *path: str) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        place = config["services"][service]
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_set("api", "user", "0:10001"), "api: runs as root"),
        (_set("edge", "user", "root"), "edge: runs as root"),
        (_without("loki", "user"), "loki: runs as root"),
        (_without("prepare", "labels", "org.yardstick.exception.user"), "prepare: runs as root"),
        (_set("prepare", "labels", {"org.yardstick.exception.user": "because"}), "prepare: runs as root"),
        (_set("worker", "read_only", False), "worker: its root file system can be written"),
        (_without("redis", "read_only"), "redis: its root file system can be written"),
        (_without("tempo", "cap_drop"), "tempo: keeps capabilities"),
        (_set("tempo", "cap_drop", ["NET_RAW"]), "tempo: keeps capabilities"),
        (_set("edge", "cap_add", ["NET_BIND_SERVICE"]), "edge: adds NET_BIND_SERVICE without a reason"),
        (_set("api", "privileged", True), "api: is privileged"),
        (_set("api", "security_opt", []), "api: may gain privileges"),
        (_without("api", "deploy", "resources", "limits", "memory"), "api: has no limit of memory"),
        (_without("api", "deploy", "resources", "limits", "cpus"), "api: has no limit of cpus"),
        (_without("api", "deploy", "resources", "limits", "pids"), "api: has no limit of pids"),
        (_without("grafana", "healthcheck"), "grafana: has no health check"),
        (_set("grafana", "healthcheck", {"disable": True}), "grafana: has no health check"),
        (_without("mail", "logging"), "mail: its log is not rotated"),
        (_without("mail", "logging", "options", "max-file"), "mail: its log is not rotated"),
        (_set("edge", "ports", ["8000:8080"]), "edge: publishes 8000:8080 to every network"),
        (_set("edge", "ports", ["0.0.0.0:8000:8080"]), "to every network"),
        (_set("edge", "ports", [{"target": 8080, "published": "8000"}]), "to every network"),
        (_set("redis", "image", "redis:latest"), "redis: image 'redis:latest' is not pinned"),
        (_set("redis", "image", "redis"), "redis: image 'redis' is not pinned"),
        (_set("redis", "image", "redis:8.10"), "redis: image 'redis:8.10' is not pinned"),
        (_set("postgres", "image", "postgres:18"), "is not pinned"),
        (_set("postgres", "environment", {"POSTGRES_PASSWORD": "x"}), "POSTGRES_PASSWORD is a secret"),
        (_set("api", "environment", ["FILES_SIGNING_KEY=x"]), "FILES_SIGNING_KEY is a secret"),
        (_set("api", "environment", {"DATABASE_URL": "postgres://u:p@h/d"}), "DATABASE_URL holds a"),
        (_set("api", "command", ["x", "redis://:p@h/0"]), "api: its command holds a password"),
        (_set("api", "volumes", ["/var/run/docker.sock:/s"]), "api: can reach the engine's socket"),
        (_set("api", "network_mode", "host"), "api: shares the machine's network_mode"),
        (_set("edge", "networks", ["edge", "app", "data"]), "data: the edge can reach postgres"),
        (_set("edge", "networks", ["edge", "app", "broker"]), "broker: the edge can reach rabbitmq"),
        (_set("rabbitmq", "environment", {"RABBITMQ_DEFAULT_PASS": "x"}), "_DEFAULT_PASS is a secret"),
        (_without("rabbitmq", "user"), "rabbitmq: runs as root"),
        (_without("mail", "networks"), "default: mail is on it"),
        (lambda config: config["networks"].update(data={}), "network data: has a way out"),
        (lambda config: config["networks"].update(broker={}), "network broker: has a way out"),
    ],
)  # fmt: skip
def test_a_broken_rule_is_told(config: Config, change: Callable[[Config], None], told: str) -> None:
    broken = copy.deepcopy(config)
    change(broken)
    found = hardening.faults(broken)
    assert any(told in fault for fault in found), found


def test_without_secrets_it_says_what_to_run() -> None:
    with pytest.raises(StackError, match="run `make secrets` first"):
        by_yaml(environment={})


def test_every_component_has_a_service_with_its_flags(config: Config) -> None:
    for component in COMPONENTS:
        if component.name == "epmd":  # RabbitMQ's container has its own
            continue
        service = config["services"][component.name]
        words = " ".join(map(str, service.get("command") or ()))
        for argument in component.arguments:
            # Paths and addresses are the container's own; switches are not.
            if argument.startswith("--") and "{" not in argument:
                assert argument in words or component.name == "grafana", f"{component.name}: {argument}"


def test_images_are_of_the_versions_that_run_as_plain_processes(config: Config) -> None:
    for name in ("prometheus", "alertmanager", "loki", "tempo", "otelcol", "grafana"):
        version = binaries.PROGRAMS[name].version
        assert re.search(rf":v?{re.escape(version)}$", config["services"][name]["image"]), name
    text = DOCKERFILES[1].read_text()
    assert f"otel/opentelemetry-collector-contrib:{binaries.PROGRAMS['otelcol'].version}\n" in text


def test_base_images_are_pinned_and_given_by_argument() -> None:
    for file in DOCKERFILES:
        text = file.read_text()
        arguments = dict(re.findall(r"^ARG (\w+_IMAGE)=(\S+)$", text, re.MULTILINE))
        assert all(re.search(r":v?\d+\.\d+\.\d+(-\S+)?$", image) for image in arguments.values()), arguments
        stages = set(re.findall(r"^FROM \S+ AS (\S+)$", text, re.MULTILINE))
        sources = set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) - stages
        assert sources <= {f"${{{name}}}" for name in arguments}
        assert sources


def test_the_scrape_targets_are_generated() -> None:
    assert discovery.generated() == discovery.present(), "run: python -m compose.discovery"


def test_stop_periods_are_those_of_the_table(config: Config) -> None:
    for name in ("api", "worker", "postgres", "rabbitmq", "loki"):
        period = config["services"][name]["stop_grace_period"]
        assert period == f"{by_name(COMPONENTS)[name].stop_seconds}s"
