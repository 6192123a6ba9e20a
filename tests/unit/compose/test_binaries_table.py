"""The table of programs agrees with the committed tools modules and with what the stack's collector names."""

import re
from pathlib import Path

import pytest
import yaml

from compose.binaries import PROGRAMS
from compose.binaries.table import COLLECTOR_COMPONENTS, GO_MODULES, UNIX

CONFIG = Path(__file__).parents[3] / "compose" / "config" / "otelcol"
RECIPES = {entry.go.module: entry for entry in PROGRAMS.values() if entry.go}


def test_every_program_has_a_go_build_or_says_why_not() -> None:
    for entry in PROGRAMS.values():
        assert bool(entry.go) != bool(entry.no_go), entry.name


def test_the_pinned_version_is_one_that_the_configuration_fits() -> None:
    for entry in PROGRAMS.values():
        assert entry.floor <= tuple(map(int, entry.version.split("."))) < entry.below, entry.name


def test_hashes_are_of_known_platforms_and_whole() -> None:
    for entry in PROGRAMS.values():
        assert set(entry.release.sha256) <= set(entry.release.platforms) <= set(UNIX)
        for digest in entry.release.sha256.values():
            assert re.fullmatch(r"[0-9a-f]{64}", digest), entry.name


def test_templates_fill_without_a_rest() -> None:
    for entry in PROGRAMS.values():
        for platform in entry.release.platforms:
            for text in (entry.release.path, entry.release.checksums, *entry.release.members.values()):
                assert "{" not in entry.release.fill(text, entry.version, platform)
        assert entry.name in entry.release.members


@pytest.mark.parametrize("module", RECIPES)
def test_a_module_is_pinned_whole(module: str) -> None:
    mod = (GO_MODULES / module / "go.mod").read_text()
    assert re.search(r"^toolchain go1\.\d+\.\d+$", mod, re.MULTILINE)
    assert (GO_MODULES / module / "go.sum").stat().st_size > 10_000
    assert "=> ." not in mod  # a relative replace would take code that is not in the repository


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("loki", "github.com/grafana/loki/v3 v{version}"),
        ("alertmanager", "github.com/prometheus/alertmanager v{version}"),
        ("versitygw", "github.com/versity/versitygw v{version}"),
        ("otelcol", "go.opentelemetry.io/collector/service v{version}"),
    ],
)
def test_a_module_builds_the_version_of_the_table(program: str, line: str) -> None:
    mod = (GO_MODULES / program / "go.mod").read_text()
    assert line.format(version=PROGRAMS[program].version) in mod


def test_the_prometheus_module_counts_3_14_0_as_0_314_0() -> None:
    major, minor, patch = map(int, PROGRAMS["prometheus"].version.split("."))
    mod = (GO_MODULES / "prometheus" / "go.mod").read_text()
    assert f"github.com/prometheus/prometheus v0.{major}{minor:02d}.{patch} " in mod


def test_the_collector_sources_were_generated_from_the_builder_file() -> None:
    folder = GO_MODULES / "otelcol"
    manifest = yaml.safe_load((folder / "builder.yaml").read_text())
    assert manifest["dist"]["version"] == PROGRAMS["otelcol"].version
    assert f'"{manifest["dist"]["version"]}"' in (folder / "main.go").read_text()
    mod = (folder / "go.mod").read_text()
    for kind, names in COLLECTOR_COMPONENTS.items():
        assert len(manifest[kind]) == len(names), kind
        for each in manifest[kind]:
            assert f"\t{each['gomod']}\n" in mod


def test_the_table_names_every_component_of_the_configuration() -> None:
    files = sorted(CONFIG.glob("*.y*ml")) if CONFIG.is_dir() else []
    if not files:
        pytest.skip("no collector configuration in compose/config/otelcol")
    for file in files:
        config = yaml.safe_load(file.read_text())
        for kind, names in COLLECTOR_COMPONENTS.items():
            used = {key.partition("/")[0] for key in config.get(kind) or {}}
            assert used <= set(names), f"{file.name}: {kind}"
