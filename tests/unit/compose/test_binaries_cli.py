"""`python -m compose.binaries`: what it prints, and its exit codes."""

from pathlib import Path

import pytest

from compose.binaries import PROGRAMS
from compose.binaries.__main__ import main


@pytest.fixture(autouse=True)
def only_loki(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with Loki on PATH, and no way to anything else."""
    folder = tmp_path / "path"
    folder.mkdir()
    loki = folder / "loki"
    loki.write_text("#!/bin/sh\necho loki, version 3.7.6\n")
    loki.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("YARDSTICK_OFFLINE", "1")
    monkeypatch.setenv("COLUMNS", "200")
    return loki


def test_list_names_every_program_and_why_it_is_missing(
    only_loki: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 1
    said = capsys.readouterr().out
    for name in PROGRAMS:
        assert name in said
    assert str(only_loki) in said
    assert "PATH: no otelcol-contrib or otelcol" in said


def test_path_prints_only_the_path(only_loki: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["path", "loki"]) == 0
    assert capsys.readouterr().out == f"{only_loki}\n"


def test_path_of_a_missing_program_says_how_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["path", "tempo"]) == 1
    caught = capsys.readouterr()
    assert caught.out == ""
    assert "tempo cannot be had:" in caught.err
    assert "python -m compose.binaries fetch tempo" in caught.err


def test_fetch_goes_on_after_a_program_that_cannot_be_had(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "tempo", "loki"]) == 1
    said = capsys.readouterr().out
    assert "tempo cannot be had:" in said
    assert "Put tempo, from 3.0.0 up and below 3.1.0, on PATH or at" in said
    assert "loki 3.7.6 from PATH" in said


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["fetch", "promtail"])
    assert "no program named promtail" in capsys.readouterr().err
