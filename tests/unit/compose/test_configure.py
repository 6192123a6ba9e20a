"""From the table to a command line, an environment and a folder of configuration."""

import dataclasses
import json
from pathlib import Path

import pytest

from compose import configure
from compose.components import COMPONENTS
from compose.configure import Setting, copy_config, plan, write_targets
from compose.graph import by_name
from compose.model import Resolved, Var
from compose.paths import Paths

PYTHON = Resolved(Path("/usr/bin/python3"), "3.11", "PATH")


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    ports = {component.name: dict(component.ports) for component in COMPONENTS}
    secrets = {f"{name}_password": f"secret-{name}" for name in ("postgres", "redis", "files", "grafana")}
    paths = Paths.of(tmp_path / "state")
    paths.make()
    return Setting(paths, ports, secrets, frozenset(by_name(COMPONENTS)))


def test_the_same_plan_has_the_same_fingerprint(setting: Setting) -> None:
    prometheus = by_name(COMPONENTS)["prometheus"]
    first, second = plan(prometheus, PYTHON, setting), plan(prometheus, PYTHON, setting)
    assert first == second
    assert first.arguments[0] == "/usr/bin/python3"
    assert f"--web.listen-address=127.0.0.1:{prometheus.ports['http']}" in first.arguments


def test_whatever_the_process_sees_changes_the_fingerprint(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configure, "ROOT", tmp_path)
    code = tmp_path / "code" / "module.py"
    code.parent.mkdir()
    code.write_text("x = 1")
    api = dataclasses.replace(by_name(COMPONENTS)["api"], watch=("code",))
    prints = [plan(api, PYTHON, setting).fingerprint]
    code.write_text("x = 2")
    prints.append(plan(api, PYTHON, setting).fingerprint)
    monkeypatch.setenv("TELEMETRY_SAMPLE_RATIO", "0.1")
    prints.append(plan(api, PYTHON, setting).fingerprint)
    prints.append(plan(api, dataclasses.replace(PYTHON, version="3.12"), setting).fingerprint)
    more = dataclasses.replace(api, environment=(*api.environment, Var("APP_DEBUG", "true")))
    prints.append(plan(more, PYTHON, setting).fingerprint)
    moved = dataclasses.replace(setting, ports={**setting.ports, "postgres": {"sql": 15432}})
    prints.append(plan(api, PYTHON, moved).fingerprint)
    assert len(set(prints)) == len(prints)


def test_other_variables_and_discovered_targets_do_not_change_the_fingerprint(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    prometheus = by_name(COMPONENTS)["prometheus"]
    before = plan(prometheus, PYTHON, setting).fingerprint
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    write_targets(setting, COMPONENTS, setting.paths.config("prometheus") / "targets")
    assert plan(prometheus, PYTHON, setting).fingerprint == before


def test_the_table_wins_over_the_users_environment(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_PORT", "1")
    monkeypatch.setenv("APP_DRAIN_SECONDS", "3")
    planned = plan(by_name(COMPONENTS)["api"], PYTHON, setting).environment
    assert (planned["APP_PORT"], planned["APP_DRAIN_SECONDS"]) == ("8000", "3")


def test_a_copied_configuration_follows_its_source_and_loses_what_has_gone(setting: Setting) -> None:
    loki = by_name(COMPONENTS)["loki"]
    folder = setting.paths.config("loki")
    copy_config(loki, setting)
    assert (folder / "rules" / "fake" / "errors.yaml").exists()
    stale = folder / "rules" / "fake" / "gone.yaml"
    stale.write_text("groups: []")
    (folder / "loki.yaml").write_text("damaged")
    copy_config(loki, setting)
    assert not stale.exists()
    assert "auth_enabled" in (folder / "loki.yaml").read_text()


def test_redis_gets_its_password_in_a_private_file(setting: Setting) -> None:
    copy_config(by_name(COMPONENTS)["redis"], setting)
    file = setting.paths.config("redis") / "redis.conf"
    assert file.read_text().endswith("requirepass secret-redis\n")
    assert file.stat().st_mode & 0o077 == 0


def test_targets_are_written_for_what_is_there_and_removed_with_it(setting: Setting, tmp_path: Path) -> None:
    folder = tmp_path / "targets"
    write_targets(setting, COMPONENTS, folder)
    assert json.loads((folder / "api.json").read_text()) == [
        {"targets": ["127.0.0.1:8000"], "labels": {"job": "yardstick-api"}}
    ]
    assert {file.name for file in (folder / "alertmanagers").iterdir()} == {"alertmanager.json"}
    without = dataclasses.replace(setting, present=frozenset({"api", "prometheus"}))
    write_targets(without, COMPONENTS, folder)
    assert {file.name for file in folder.glob("*.json")} == {"api.json", "prometheus.json"}
    assert list((folder / "alertmanagers").iterdir()) == []
