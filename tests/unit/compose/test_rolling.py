"""What a roll asks of compose and of the engine, in which order, and where it stops."""

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from compose import docker, rolling
from compose.cli import app
from compose.docker import Containers
from compose.model import StackError

# Both note what they were asked. An `up` with a scale makes one more instance; the newest stands first.
COMPOSE = """#!/bin/sh
echo "compose $1" >>"$NOTES"
[ "$1" = "$COMPOSE_FAILS" ] && failed=1
case "$*" in
*--scale=api=*) echo "new$$" | cat - "$NOTES.ids" >"$NOTES.n" && mv "$NOTES.n" "$NOTES.ids" ;;
esac
exit "${failed:-0}"
"""
ENGINE = """#!/bin/sh
case "$1 $*" in
ps*service=edge*) echo edge1 ;;
ps*service=api*) cat "$NOTES.ids" ;;
ps*) ;;
rm*) echo "docker $*" >>"$NOTES"; for id; do sed -i "/^$id\\$/d" "$NOTES.ids"; done ;;
inspect*) echo "x_data 10.0.0.1"; echo "x_app 10.0.1.9" ;;
exec*X-Instance*10.0.1.9:*) echo "docker exec seen" >>"$NOTES"; exit "${UNSEEN:-0}" ;;
exec*) echo "docker exec $2" >>"$NOTES" ;;
*) echo "docker $*" >>"$NOTES" ;;
esac
exit 0
"""


@pytest.fixture(autouse=True)
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the programs note what they were asked; two instances of the API run, the newer one first."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in (("compose", COMPOSE), ("docker", ENGINE)):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin")
    monkeypatch.setenv("YARDSTICK_COMPOSE", str(programs / "compose"))
    monkeypatch.setenv("YARDSTICK_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("COMPOSE_FAILS", "nothing")
    monkeypatch.setattr(docker, "FILE", tmp_path / "compose.yaml")
    (tmp_path / "notes.ids").write_text("second\nfirst\n")
    Containers().up()
    (tmp_path / "notes").unlink()
    return tmp_path / "notes"


def test_one_after_the_other_the_oldest_first(notes: Path) -> None:
    assert rolling.roll(Containers()) == 2
    asked = notes.read_text().splitlines()
    assert asked[:2] == ["compose build", "compose run"]
    for old, lines in (("first", asked[2:7]), ("second", asked[7:])):
        assert lines[:2] == ["compose up", "docker exec seen"]
        # The edge is asked while the instance is told to stop, not after.
        assert set(lines[2:4]) == {f"docker stop {old}", "docker exec edge1"}
        assert lines[4:] == [f"docker rm {old}"]
    left = Containers().ids("api")
    assert len(set(left)) == 2
    assert all(one.startswith("new") for one in left)


def test_a_new_instance_that_fails_is_removed_and_nothing_is_stopped(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMPOSE_FAILS", "up")
    with pytest.raises(StackError, match="the new api did not become healthy; the old one goes on"):
        rolling.roll(Containers())
    asked = notes.read_text().splitlines()
    assert asked[-1].startswith("docker rm --force new")
    assert not any(line.startswith("docker stop") for line in asked)
    assert Containers().ids("api") == ["second", "first"]


def test_a_new_instance_that_the_edge_does_not_see_is_removed(
    notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNSEEN", "1")
    with pytest.raises(StackError, match="the edge has no answer of the new api"):
        rolling.roll(Containers())
    assert "docker stop" not in notes.read_text()
    assert Containers().ids("api") == ["second", "first"]


@pytest.mark.parametrize("step", ["build", "run"])
def test_without_an_image_or_a_schema_nothing_is_started(
    notes: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setenv("COMPOSE_FAILS", step)
    with pytest.raises(StackError, match="could not be"):
        rolling.roll(Containers())
    assert "compose up" not in notes.read_text()


def test_what_cannot_be_rolled_is_said(notes: Path) -> None:
    result = CliRunner().invoke(app, ["roll", "postgres"])
    assert (result.exit_code, "postgres has one instance only" in result.stderr) == (1, True)
    Containers().down()
    result = CliRunner().invoke(app, ["roll"])
    assert (result.exit_code, "`make up MODE=docker` starts" in result.stderr) == (1, True)
