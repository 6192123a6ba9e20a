"""What stands around `docker compose`: secrets, ports, the state, and the words for what Docker says."""

import json
import os
import re
import stat
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compose import docker, ports, view
from compose.cli import app
from compose.docker import Container, Containers
from compose.model import StackError
from compose.native import Stack
from compose.state import State

COMPOSE = """#!/bin/sh
# Notes what it was asked, and what it was told about the stack.
echo "$@" >>"$NOTES"
env | grep -E '^(YARDSTICK_|COMPOSE_)' | sort >"$NOTES.env"
exit "${COMPOSE_EXIT:-0}"
"""
ENGINE = """#!/bin/sh
# An engine on which the containers of a file run.
[ "$1" = ps ] && cat "$NOTES.ps" 2>/dev/null
exit 0
"""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder of its own, and programs in the place of compose and of the engine's client."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("compose", COMPOSE), ("docker", ENGINE)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("YARDSTICK_COMPOSE", str(programs / "compose"))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("YARDSTICK_STATE", str(tmp_path / "state"))
    for variable, _ in docker.PUBLISHED.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.delenv("COMPOSE_PROJECT_NAME", raising=False)
    # The file beside compose.yaml belongs to this checkout's own stack.
    monkeypatch.setattr(docker, "FILE", tmp_path / "compose.yaml")
    return tmp_path / "state"


def told(state: Path) -> dict[str, str]:
    lines = (state.parent / "notes.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_the_first_up_generates_secrets_and_tells_compose_where_they_are(state: Path) -> None:
    containers = Containers()
    assert containers.up() == 0
    files = sorted(state.glob("secrets/*-password"))
    assert [file.name.removesuffix("-password") for file in files] == [
        "files", "grafana", "postgres", "rabbitmq", "redis", "s3",
    ]  # fmt: skip
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((state / "secrets").stat().st_mode) == 0o700
    assert told(state)["YARDSTICK_SECRETS"] == str(state / "secrets")
    assert (state.parent / ".env").read_text() == f"YARDSTICK_SECRETS={state / 'secrets'}\n"
    before = [file.read_text() for file in files]
    assert containers.up() == 0
    assert [file.read_text() for file in files] == before
    asked = (state.parent / "notes").read_text().splitlines()
    assert asked == ["up --detach --build --wait --remove-orphans"] * 2
    assert not any(text in (state.parent / "notes.env").read_text() for text in before)


def test_another_state_folder_is_another_stack(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Containers().up()
    one = told(state)["COMPOSE_PROJECT_NAME"]
    assert re.fullmatch(r"yardstick-[0-9a-f]{8}", one)
    monkeypatch.setenv("YARDSTICK_STATE", str(state.parent / "other"))
    Containers().up()
    assert told(state)["COMPOSE_PROJECT_NAME"] != one


def test_a_port_that_is_taken_is_left_alone_and_said(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remarks: list[str] = []
    monkeypatch.setattr(ports, "is_free", lambda port: port != 8000)
    monkeypatch.setenv("YARDSTICK_GRAFANA_PORT", "3999")
    (state.parent / "notes.ps").write_text("edge\te\trunning\tUp 1 second (healthy)\ti\n")
    containers = Containers(report=lambda event: remarks.append(event.text))
    containers.up()
    assert told(state)["YARDSTICK_API_PORT"] == "18000"
    assert told(state)["YARDSTICK_GRAFANA_PORT"] == "3999"
    assert [remark for remark in remarks if remark.startswith("api uses port 18000: 8000 is held by")]
    # The second time the port is ours: it stays, although it is taken now.
    monkeypatch.setattr(ports, "is_free", lambda port: port not in (8000, 18000))
    containers.up()
    assert told(state)["YARDSTICK_API_PORT"] == "18000"


def test_only_what_runs_has_an_address(state: Path) -> None:
    rows = ("api\ta\trunning\tUp 2 seconds (healthy)\tx", "prometheus\tp\trunning\tUp 2 seconds (healthy)\tx")
    (state.parent / "notes.ps").write_text("\n".join(rows) + "\n")
    Containers().up()
    addresses = Containers().endpoints()
    assert addresses.keys() == {"api", "prometheus"}
    assert json.loads((state / "endpoints.json").read_text()) == addresses


def test_what_has_a_profile_of_its_own_has_a_port_and_an_address_only_with_it(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "is_free", lambda port: True)
    rows = ("mail\tm\trunning\tUp 2 seconds (healthy)\tx", "s3\ts\trunning\tUp 2 seconds (healthy)\tx")
    (state.parent / "notes.ps").write_text("\n".join(rows) + "\n")
    Containers().up()
    assert not told(state).keys() & {"YARDSTICK_MAIL_PORT", "YARDSTICK_S3_PORT"}
    monkeypatch.setenv("COMPOSE_PROFILES", "mail")
    monkeypatch.setenv("FILES_ENGINE", "s3")
    shown = CliRunner().invoke(app, ["up", "--mode", "docker"]).output
    assert (told(state)["YARDSTICK_MAIL_PORT"], told(state)["YARDSTICK_S3_PORT"]) == ("8025", "7070")
    assert told(state)["COMPOSE_PROFILES"] == "mail,s3"
    assert re.search(r"mail +http://127.0.0.1:8025 +what was mailed", shown)
    assert re.search(r"s3 +http://127.0.0.1:7070 +files", shown)


def test_down_keeps_the_volumes_unless_asked_and_the_secrets_always(state: Path) -> None:
    Containers().up()
    assert Containers().is_up
    assert Containers().down() == 0
    Containers().down(volumes=True)
    asked = (state.parent / "notes").read_text().splitlines()[1:]
    assert asked == ["--profile * down --remove-orphans", "--profile * down --remove-orphans --volumes"]
    assert not Containers().is_up
    assert len(list(state.glob("secrets/*-password"))) == 6


def test_a_down_that_failed_is_not_forgotten(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Containers().up()
    monkeypatch.setenv("COMPOSE_EXIT", "17")
    assert CliRunner().invoke(app, ["down"]).exit_code == 17
    assert Containers().is_up


@pytest.mark.parametrize(
    ("state_", "text", "word", "good"),
    [
        ("running", "Up 5 minutes (healthy)", "healthy", True),
        ("running", "Up 5 minutes (unhealthy)", "unhealthy", False),
        ("running", "Up 5 seconds (health: starting)", "starting", False),
        ("running", "Up 5 minutes", "running", True),
        ("exited", "Exited (0) 2 hours ago", "done", True),
        ("exited", "Exited (137) 2 hours ago", "failed 137", False),
        ("restarting", "Restarting (1) 2 seconds ago", "restarting", False),
    ],
)
def test_what_docker_says_in_one_word(state_: str, text: str, word: str, good: bool) -> None:
    assert docker._state(state_, text) == word
    assert Container("api", "api-1", word, "image").good is good


def test_status_is_red_where_a_container_is_not_well(state: Path) -> None:
    Containers().up()
    (state.parent / "notes.ps").write_text(
        "api\tx-api-1\texited\tExited (1) 2 seconds ago\timage:1.2.3@sha256:0\n"
    )
    result = CliRunner().invoke(app, ["status"])
    assert result.exit_code == 1
    assert "failed 1" in result.output
    assert "image:1.2.3 " in result.output


def test_plain_processes_and_containers_keep_apart(state: Path) -> None:
    Containers().up()
    result = CliRunner().invoke(app, ["up", "--only", "redis"])
    assert (result.exit_code, "runs in containers; `make down` first" in result.stderr) == (1, True)
    Containers().down()
    State(Stack().paths.file, wanted=["redis"]).save()
    with pytest.raises(StackError, match="runs as plain processes; `make down` first"):
        Containers().up()


def test_without_an_engine_it_says_what_else_there_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("YARDSTICK_COMPOSE")
    monkeypatch.setenv("PATH", os.pathsep.join([str(tmp_path / "empty"), str(Path(sys.executable).parent)]))
    result = CliRunner().invoke(app, ["up", "--mode", "docker"])
    assert result.exit_code == 1
    assert "no Docker engine" in result.stderr
    assert "MODE=native" in result.stderr


@pytest.mark.parametrize(
    ("usage", "mebibytes"),
    [("82.5MiB / 384MiB", 82.5), ("1.5GiB / 2GiB", 1536.0), ("512KiB / 1MiB", 0.5), ("", 0.0)],
)
def test_memory_as_docker_writes_it(usage: str, mebibytes: float) -> None:
    assert view.mebibytes(usage) == mebibytes
