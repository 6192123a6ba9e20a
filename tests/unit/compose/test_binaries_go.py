"""Building with Go: a real build of a small module, and the ways in which a build cannot be."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest

from compose.binaries import PROGRAMS, ProgramUnavailable, gobuild, obtain
from compose.binaries.errors import SourceError
from compose.binaries.table import GO_MODULES, GoRecipe

MAIN = """package main

import "fmt"

var version = "unknown"

func main() { fmt.Println("loki, version " + version) }
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module without dependencies stands in for Loki's; releases are out of reach, the cache is empty."""
    folder = tmp_path / "go" / "small"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module small\n\ngo 1.21\n")
    (folder / "main.go").write_text(MAIN)
    recipe = GoRecipe(module="small", packages={"loki": "."}, version_symbols=("main.version",))
    monkeypatch.setitem(PROGRAMS, "loki", dataclasses.replace(PROGRAMS["loki"], go=recipe))
    monkeypatch.setattr(gobuild, "GO_MODULES", tmp_path / "go")
    monkeypatch.setenv("YARDSTICK_RELEASE_BASE", "http://127.0.0.1:9")
    if go := shutil.which("go"):  # Go's own build cache would follow XDG_CACHE_HOME and be cold each time
        asked = subprocess.run([go, "env", "GOCACHE"], capture_output=True, text=True, check=True)
        monkeypatch.setenv("GOCACHE", asked.stdout.strip())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("YARDSTICK_NO_GO", raising=False)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "yardstick"


def refused() -> str:
    with pytest.raises(ProgramUnavailable) as caught:
        obtain("loki")
    assert caught.value.reasons[-1].startswith("go build: ")
    return caught.value.reasons[-1]


def fake_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    folder = tmp_path / "path"
    folder.mkdir()
    (folder / "go").write_text(f"#!/bin/sh\n{body}\n")
    (folder / "go").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


needs_go = pytest.mark.skipif(shutil.which("go") is None, reason="no go on PATH")


@needs_go
def test_a_build_carries_the_version_of_the_table(module: Path, cache: Path) -> None:
    said: list[str] = []
    found = obtain("loki", report=said.append)
    assert (found.path, found.version, found.source) == (cache / "bin" / "loki", "3.7.6", "go build")
    assert (
        subprocess.run([found.path], capture_output=True, text=True, check=True).stdout
        == "loki, version 3.7.6\n"
    )
    assert not list(cache.glob(".build-*"))
    assert obtain("loki").source == "cache"


@needs_go
def test_a_build_that_fails_names_its_log_and_leaves_nothing(module: Path, cache: Path) -> None:
    (module / "main.go").write_text("package main\n\nfunc main() { undefined() }\n")
    reason = refused()
    log = cache / "log" / "small-build.log"
    assert "undefined: undefined" in reason
    assert reason.endswith(f"its log is {log}")
    assert "undefined: undefined" in log.read_text()
    assert not list((cache / "bin").iterdir())
    assert not list(cache.glob(".build-*"))


@needs_go
def test_a_build_of_the_wrong_version_does_not_count(module: Path, cache: Path) -> None:
    (module / "main.go").write_text(MAIN.replace('" + version', '2.0.0"'))
    assert "2.0.0, older than 3.7.2" in refused()
    assert not list((cache / "bin").iterdir())


def test_without_go_the_reason_says_so(tmp_path: Path, module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert "no `go` on PATH" in refused()


def test_a_go_too_old_to_fetch_toolchains(
    tmp_path: Path, module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_go(tmp_path, monkeypatch, "echo go version go1.19.8 linux/amd64")
    assert "install Go 1.21 or newer" in refused()


def test_go_builds_can_be_switched_off(module: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("YARDSTICK_NO_GO", "1")
    assert "YARDSTICK_NO_GO" in refused()


def test_a_program_without_a_recipe_says_why(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="web UI built apart"):
        gobuild.build(PROGRAMS["grafana"], tmp_path, lambda *_: None, lambda _: None)


def test_a_build_that_takes_too_long_is_ended(
    tmp_path: Path, module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_go(tmp_path, monkeypatch, 'if [ "$1" = version ]; then echo go1.26.8; else sleep 600; fi')
    monkeypatch.setattr(gobuild, "LIMIT_SECONDS", 1)
    assert "was ended" in refused()


def test_what_a_killed_build_left_is_removed(
    tmp_path: Path, module: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = cache / ".build-killed"
    stale.mkdir(parents=True)
    (stale / "module").write_text("")
    fake_go(tmp_path, monkeypatch, "echo go1.26.8; test $1 = version")
    assert "`" in refused()
    assert not stale.exists()


def test_every_recipe_names_its_toolchain() -> None:
    for entry in PROGRAMS.values():
        if entry.go:
            named = gobuild.toolchain(GO_MODULES / entry.go.module)
            assert named.startswith("go1."), entry.name
