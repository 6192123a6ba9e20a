"""The command line: exit codes, and one message in place of a traceback."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from compose import binaries, verify
from compose.binaries import Program, ProgramUnavailable
from compose.cli import app
from compose.native import Stack
from compose.state import Running, State


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("YARDSTICK_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize("arguments", [("up", "--only", "postgres,lokki"), ("logs", "lokki")])
def test_an_unknown_component_is_wrong_use(arguments: tuple[str, ...], state: Path) -> None:
    result = call(*arguments)
    assert result.exit_code == 2
    assert "no component lokki. There are: postgres, redis" in result.stderr.replace("\n", " ")
    assert not state.exists()


@pytest.mark.parametrize(
    "arguments", [("status",), ("endpoints",), ("endpoints", "--show"), ("run", "--", "true")]
)
def test_what_needs_a_stack_says_that_there_is_none(arguments: tuple[str, ...]) -> None:
    result = call(*arguments)
    assert result.exit_code == 1
    assert "not up" in result.output
    assert "make up" in result.output


def test_down_where_nothing_runs_is_no_fault() -> None:
    assert call("down").exit_code == 0
    assert call("down", "--volumes").exit_code == 0


def test_a_state_folder_that_cannot_be_is_one_message(state: Path) -> None:
    state.write_text("a file")
    result = call("up", "--only", "redis")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"cannot write the stack's state to {state}: ")
    assert "YARDSTICK_STATE" in result.stderr
    assert "Traceback" not in result.output


def test_a_dead_component_makes_status_fail(state: Path) -> None:
    state.mkdir()
    State(state / "state.json", wanted=["redis"], running={"redis": Running(1, 0, "", 0.0)}).save()
    (state / "secrets").mkdir()
    result = call("status")
    assert result.exit_code == 1
    assert "died" in result.stdout


def test_status_for_programs_is_json_with_the_same_exit_codes(state: Path) -> None:
    result = call("status", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["components"] == []
    state.mkdir()
    State(state / "state.json", wanted=["redis"], running={"redis": Running(1, 0, "", 0.0)}).save()
    (state / "secrets").mkdir()
    result = call("status", "--json")
    assert result.exit_code == 1
    found = {row["name"]: row for row in json.loads(result.stdout)["components"]}
    assert (found["redis"]["state"], found["redis"]["good"], found["api"]["good"]) == ("died", False, True)


def test_backup_and_restore_without_a_stack_are_one_message(state: Path, tmp_path: Path) -> None:
    result = call("backup", "--folder", str(tmp_path / "backups"))
    assert (result.exit_code, "the stack is not up; `make up` starts it" in result.stderr) == (1, True)
    assert list((tmp_path / "backups").iterdir()) == []
    result = call("restore", str(tmp_path / "none.zip"))
    assert (result.exit_code, f"there is no {tmp_path / 'none.zip'}" in result.stderr) == (1, True)
    assert not state.exists()


def test_a_command_runs_with_the_services_settings_and_its_exit_code(state: Path) -> None:
    (state / "secrets").mkdir(parents=True)
    ports = {
        name: {"sql": 1, "redis": 2, "http": 3, "grpc": 4} for name in ("postgres", "redis", "api", "otelcol")
    }
    State(state / "state.json", wanted=["api"], ports=ports).save()
    script = "import os, sys; sys.exit(7 if ':1/yardstick' in os.environ['DATABASE_URL'] else 1)"
    assert call("run", "--", "python3", "-c", script).exit_code == 7
    quiet = "import os, sys; sys.exit('TELEMETRY_LOG_FILE' in os.environ)"
    assert call("run", "--", "python3", "-c", quiet).exit_code == 0
    result = call("run", "--", "no-such-program")
    assert result.exit_code == 1
    assert "no-such-program cannot be run" in result.stderr


def test_endpoints_are_json_for_programs_and_links_for_people(state: Path) -> None:
    state.mkdir()
    addresses = {"api": "http://127.0.0.1:8000", "redis": "redis://:secret@127.0.0.1:6379/0"}
    (state / "endpoints.json").write_text(json.dumps(addresses))
    assert json.loads(call("endpoints").stdout) == addresses
    shown = call("endpoints", "--show").stdout
    assert "http://127.0.0.1:8000" in shown
    assert "secret" not in shown


def program(folder: Path, name: str, body: str) -> Program:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return Program(name, path, "1.2.3", "PATH")


def test_verify_shows_what_a_program_objects_to_and_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locate(name: str) -> Program:
        if name == "loki":
            raise ProgramUnavailable(name, ("PATH: no loki",))
        body = 'echo "line 3: [what] is this: $TEMPO_HTTP_PORT"; exit 1' if name == "tempo" else "exit 0"
        return program(tmp_path, name, body)

    monkeypatch.setattr(binaries, "locate", locate)
    result = call("verify")
    assert result.exit_code == 1
    assert "line 3: [what] is this: 3200" in result.stdout
    rows = [line.split()[:3] for line in result.stdout.splitlines()]
    assert ["good", "prometheus", "promtool"] in rows
    assert ["not", "checked", "loki"] in rows
    assert ["fault", "tempo", "tempo"] in rows


def test_verify_is_content_when_only_programs_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def locate(name: str) -> Program:
        raise ProgramUnavailable(name, ("PATH: none",))

    monkeypatch.setattr(binaries, "locate", locate)
    result = call("verify")
    assert result.exit_code == 0
    assert result.stdout.count("not checked") == len(verify.CHECKS) + 1


def test_an_interrupt_has_its_own_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Stack, "down", interrupted)
    assert call("down").exit_code == 130
