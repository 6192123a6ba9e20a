"""What counts as a version, and which versions fit."""

from collections.abc import Callable
from pathlib import Path

import pytest

from compose.binaries import PROGRAMS, ProgramUnavailable, locate
from compose.binaries.errors import SourceError
from compose.binaries.probe import check, parse_version

Script = Callable[[str, str], Path]


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """Puts a shell script on PATH, which holds nothing else of ours; the cache is empty."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def make(name: str, body: str) -> Path:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return make


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("prometheus, version 3.14.0 (branch: HEAD, revision: x)\n go version: go1.26.8", (3, 14, 0)),
        ("prometheus, version 3.5.3+ds (branch: debian/sid)", (3, 5, 3)),
        ("otelcol-contrib version 0.159.0", (0, 159, 0)),
        ("grafana version 13.2.2", (13, 2, 2)),
        ("loki, version v3.7.6", (3, 7, 6)),
        ("Version: 13.2.2 (commit: 1.2.3)", (13, 2, 2)),
        ("3.0.3", (3, 0, 3)),
        ("tempo, version  (branch: , revision: )", None),
        ("", None),
    ],
)
def test_the_version_in_the_answer(text: str, version: tuple[int, int, int] | None) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("version", "complaint"),
    [("3.7.1", "3.7.1, older than 3.7.2"), ("4.0.0", "fits versions below 4.0.0"), ("", "states no version")],
)
def test_a_version_that_does_not_fit_is_skipped_with_the_reason(
    script: Script, version: str, complaint: str
) -> None:
    script("loki", f"echo loki, version {version}")
    with pytest.raises(ProgramUnavailable) as caught:
        locate("loki")
    assert complaint in caught.value.reasons[0]
    assert caught.value.reasons[0].startswith("PATH: ")
    assert "cache: no " in caught.value.reasons[1]


def test_a_program_on_path_that_fits(script: Script) -> None:
    path = script("loki", "echo loki, version 3.8.0")
    found = locate("loki")
    assert (found.name, found.path, found.version, found.source) == ("loki", path, "3.8.0", "PATH")


def test_the_cache_is_taken_when_the_one_on_path_is_too_old(
    script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script("loki", "echo loki, version 2.9.0")
    cached = tmp_path / "cache" / "yardstick" / "bin" / "loki"
    cached.parent.mkdir(parents=True)
    cached.write_text("#!/bin/sh\necho loki, version 3.7.6\n")
    cached.chmod(0o755)
    assert (locate("loki").path, locate("loki").source) == (cached, "cache")


def test_a_program_that_fails_is_skipped(script: Script) -> None:
    path = script("loki", "echo no such instruction; exit 3")
    with pytest.raises(SourceError, match="ended with 3: no such instruction"):
        check(PROGRAMS["loki"], path)


def test_a_file_that_is_no_program_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "loki"
    path.write_bytes(b"\x7fELF but cut off")
    path.chmod(0o755)
    with pytest.raises(SourceError, match="does not run"):
        check(PROGRAMS["loki"], path)


def test_a_replaced_file_is_asked_again(script: Script) -> None:
    script("loki", "echo loki, version 3.7.6")
    assert locate("loki").version == "3.7.6"
    script("loki", "echo loki, version 3.7.10")
    assert locate("loki").version == "3.7.10"


COMPONENTS = """
if [ "$1" = --version ]; then echo otelcol-contrib version 0.159.0; exit; fi
cat <<END
buildinfo:
    command: otelcol-contrib
receivers:
    - name: otlp
      module: x v0.159.0
    - name: file_log
    - name: host_metrics
processors:
    - name: memory_limiter
    - name: resource
    - name: transform
    - name: filter
    - name: tail_sampling
exporters:
    - name: otlp_grpc
    - name: otlp_http
    - name: debug
extensions:
    - name: health_check
    - name: file_storage
providers:
    - scheme: env
    - scheme: file
    - scheme: yaml
END
"""


def test_a_collector_has_another_name_on_path(script: Script) -> None:
    path = script("otelcol-contrib", COMPONENTS)
    assert locate("otelcol").path == path


def test_a_collector_without_a_component_is_skipped_with_its_name(script: Script) -> None:
    script("otelcol-contrib", COMPONENTS.replace("    - name: tail_sampling\n", ""))
    with pytest.raises(
        ProgramUnavailable, match="lacks what the configuration names: processors/tail_sampling"
    ):
        locate("otelcol")
