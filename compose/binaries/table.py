"""The one table of programs: versions, where releases lie, their hashes, how Go builds them.

A SHA-256 stands here only where the publisher's figure for exactly that archive is known; for the other
platforms the archive is checked against the checksum file that the publisher puts beside it.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

GO_MODULES = Path(__file__).parent / "go"

Version = tuple[int, int, int]


@dataclass(frozen=True)
class Release:
    """An official archive. Templates know {version}, {os}, {arch} and {archive} (its file name)."""

    base: str  # scheme and host; YARDSTICK_RELEASE_BASE stands in for it
    path: str
    checksums: str  # the publisher's checksum file
    platforms: tuple[str, ...]
    sha256: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, str] = field(default_factory=dict)  # program -> file inside the archive
    tree: bool = False  # install the whole archive, not single files

    def fill(self, template: str, version: str, on: str) -> str:
        """The template with this release's figures, for a platform such as `linux-amd64`."""
        system, arch = on.split("-")
        figures = {"version": version, "os": system, "arch": arch}
        return template.format(**figures, archive=self.path.format(**figures).rpartition("/")[2])


@dataclass(frozen=True)
class GoRecipe:
    """One build of a committed tools module."""

    module: str  # folder under go/
    packages: Mapping[str, str]  # program -> package
    version_symbols: tuple[str, ...] = ()  # linker symbols that take the version
    tags: tuple[str, ...] = ()
    # Files that a module embeds but does not ship: (module, path inside it, text put in its place).
    stand_ins: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Entry:
    """A program. The configuration fits versions from `floor` up to, and without, `below`."""

    name: str
    version: str
    floor: Version
    below: Version
    group: str  # programs of one archive or build share it, and so one lock
    release: Release
    go: GoRecipe | None = None
    no_go: str = ""  # why there is no Go build
    version_command: tuple[str, ...] = ("--version",)
    on_path: tuple[str, ...] = ()  # names to look for on PATH; its own name if empty
    components: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # what a collector must contain


GITHUB = "https://github.com"
UNIX = ("linux-amd64", "linux-arm64", "darwin-amd64", "darwin-arm64")
_VERSION_SYMBOLS = ("github.com/prometheus/common/version.Version",)

_PROMETHEUS = "3.14.0"
_PROMETHEUS_RELEASE = Release(
    base=GITHUB,
    path="/prometheus/prometheus/releases/download/v{version}/prometheus-{version}.{os}-{arch}.tar.gz",
    checksums="/prometheus/prometheus/releases/download/v{version}/sha256sums.txt",
    platforms=UNIX,
    sha256={
        "linux-amd64": "f665c6da19eb7ba399c915d30c7d9793c9b417bf8a749b504bc470678631478d",
        "linux-arm64": "077f3781ab7245dc04c9a3c9b78ba120fc8e41aa0dc97489b0af67247e50ba83",
        "darwin-amd64": "a14307b9726e66cadb81be9a544732623af26dabeb7702c987aa9c3c062ada34",
        "darwin-arm64": "a9623f7f4fe65b1b171b423c1a72bbf23dfdf41a171dcb33e7dd302af80dc01c",
    },
    members={name: f"prometheus-{{version}}.{{os}}-{{arch}}/{name}" for name in ("prometheus", "promtool")},
)
_PROMETHEUS_GO = GoRecipe(
    module="prometheus",
    packages={name: f"github.com/prometheus/prometheus/cmd/{name}" for name in ("prometheus", "promtool")},
    version_symbols=_VERSION_SYMBOLS,
    # Discovery through cloud APIs is most of its dependencies, and this stack uses files.
    tags=("netgo", "remove_all_sd", "enable_dns_sd"),
)

_ALERTMANAGER = "0.34.1"
_ALERTMANAGER_RELEASE = Release(
    base=GITHUB,
    path="/prometheus/alertmanager/releases/download/v{version}/alertmanager-{version}.{os}-{arch}.tar.gz",
    checksums="/prometheus/alertmanager/releases/download/v{version}/sha256sums.txt",
    platforms=UNIX,
    sha256={
        "linux-amd64": "265b9d1e55ef0d5306a436018af6d2b686c2ce051f03d968f7464ecb1372a7e8",
        "linux-arm64": "d98d6cbaf52151c7e76e24355fec88b11cebcb9875d4cdd8b76ddce7a7e5535c",
        "darwin-amd64": "9f3a3806c81a2ef3546fea9bae3dd39abcf2206edd112c9433133a9355875fce",
        "darwin-arm64": "a3941879f340ef12a4cc1a479c82bd8520611265ea8d1ee25c88bd5f944d8293",
    },
    members={name: f"alertmanager-{{version}}.{{os}}-{{arch}}/{name}" for name in ("alertmanager", "amtool")},
)
_ALERTMANAGER_GO = GoRecipe(
    module="alertmanager",
    packages={name: f"github.com/prometheus/alertmanager/cmd/{name}" for name in ("alertmanager", "amtool")},
    version_symbols=_VERSION_SYMBOLS,
    tags=("netgo",),
    # The built web UI is not in the module, and without any file there it does not compile.
    stand_ins=(
        (
            "github.com/prometheus/alertmanager",
            "ui/app/dist/placeholder.html",
            "<!doctype html><title>Alertmanager</title>Built without its web UI; the API is at /api/v2/.\n",
        ),
    ),
)

_PROMETHEUS_FLOOR: Version = (3, 11, 0)  # older ones misread storage.tsdb.retention.time in the configuration
_ALERTMANAGER_FLOOR: Version = (0, 28, 0)

# What compose/config/otelcol names; a collector found on PATH or in the cache must have them all.
COLLECTOR_COMPONENTS: dict[str, tuple[str, ...]] = {
    "receivers": ("otlp", "file_log", "host_metrics"),
    "processors": ("memory_limiter", "resource", "transform", "filter", "tail_sampling"),
    "exporters": ("otlp_grpc", "otlp_http", "debug"),
    "extensions": ("health_check", "file_storage"),
    "providers": ("env", "file", "yaml"),
}

_ENTRIES = (
    Entry(
        name="prometheus",
        version=_PROMETHEUS,
        floor=_PROMETHEUS_FLOOR,
        below=(4, 0, 0),
        group="prometheus",
        release=_PROMETHEUS_RELEASE,
        go=_PROMETHEUS_GO,
    ),
    Entry(
        name="promtool",
        version=_PROMETHEUS,
        floor=_PROMETHEUS_FLOOR,
        below=(4, 0, 0),
        group="prometheus",
        release=_PROMETHEUS_RELEASE,
        go=_PROMETHEUS_GO,
    ),
    Entry(
        name="alertmanager",
        version=_ALERTMANAGER,
        floor=_ALERTMANAGER_FLOOR,
        below=(1, 0, 0),
        group="alertmanager",
        release=_ALERTMANAGER_RELEASE,
        go=_ALERTMANAGER_GO,
    ),
    Entry(
        name="amtool",
        version=_ALERTMANAGER,
        floor=_ALERTMANAGER_FLOOR,
        below=(1, 0, 0),
        group="alertmanager",
        release=_ALERTMANAGER_RELEASE,
        go=_ALERTMANAGER_GO,
    ),
    Entry(
        name="loki",
        version="3.7.6",
        floor=(3, 7, 2),  # the ruler panics before
        below=(4, 0, 0),
        group="loki",
        release=Release(
            base=GITHUB,
            path="/grafana/loki/releases/download/v{version}/loki-{os}-{arch}.zip",
            checksums="/grafana/loki/releases/download/v{version}/SHA256SUMS",
            platforms=UNIX,
            members={"loki": "loki-{os}-{arch}"},
        ),
        go=GoRecipe(
            module="loki",
            packages={"loki": "github.com/grafana/loki/v3/cmd/loki"},
            version_symbols=("github.com/grafana/loki/v3/pkg/util/build.Version",),
            tags=("netgo",),
        ),
    ),
    Entry(
        name="tempo",
        version="3.0.3",
        floor=(3, 0, 0),
        below=(3, 1, 0),  # its configuration is parsed strictly, and changes with minor versions
        group="tempo",
        release=Release(
            base=GITHUB,
            path="/grafana/tempo/releases/download/v{version}/tempo_{version}_{os}_{arch}.tar.gz",
            checksums="/grafana/tempo/releases/download/v{version}/SHA256SUMS",
            platforms=("linux-amd64", "linux-arm64"),
            members={"tempo": "tempo"},
        ),
        no_go="Tempo's module path lacks /v3, so its 3.x releases are no versions of its Go module",
    ),
    Entry(
        name="otelcol",
        version="0.159.0",
        floor=(0, 150, 0),
        below=(1, 0, 0),
        group="otelcol",
        release=Release(
            base=GITHUB,
            path="/open-telemetry/opentelemetry-collector-releases/releases/download/v{version}"
            "/otelcol-contrib_{version}_{os}_{arch}.tar.gz",
            checksums="/open-telemetry/opentelemetry-collector-releases/releases/download/v{version}"
            "/{archive}.sha256",
            platforms=UNIX,
            sha256={
                "linux-amd64": "9d589f6349f01179957a2052bc7307a99db2efc971e14e00575941a77122eaaf",
                "linux-arm64": "abb8665cc963e886c2d1286c50b38bcb2e53d968b192c3d8fe4d1ed6b91c3901",
                "darwin-amd64": "c683fc414117b8477794dcd7591e84e61cbef1e2ff8817afb6fd622e7fb5c0d9",
                "darwin-arm64": "7e317b75b1b087ba2150bf95d79e39a394d0d091f1231af6bbebee895d200375",
            },
            members={"otelcol": "otelcol-contrib"},
        ),
        go=GoRecipe(module="otelcol", packages={"otelcol": "."}),
        on_path=("otelcol-contrib", "otelcol"),
        components=COLLECTOR_COMPONENTS,
    ),
    Entry(
        name="grafana",
        version="13.2.2",
        floor=(13, 0, 0),
        below=(14, 0, 0),
        group="grafana",
        release=Release(
            base="https://dl.grafana.com",
            path="/grafana/release/{version}/grafana_{version}_34846740809_{os}_{arch}.tar.gz",
            checksums="/grafana/release/{version}/{archive}.sha256",
            platforms=UNIX,
            sha256={
                "linux-amd64": "9662c838a09824fdb072e5f6fbdd45b62cf541b20f3d609ea5011e6e5f544c8f",
                "linux-arm64": "7268f9a576f919f14e6263b344a85b6ac8d768fbda247910c43ce4e12c747a72",
            },
            members={"grafana": "bin/grafana"},
            tree=True,
        ),
        no_go="Grafana is a Go program with a web UI built apart from it; the module alone makes no Grafana",
    ),
    # An S3 server over a folder: it checks signatures, expiry and conditions as S3 does. For the tests.
    Entry(
        name="versitygw",
        version="1.8.0",
        floor=(1, 4, 0),
        below=(2, 0, 0),
        group="versitygw",
        release=Release(
            base=GITHUB,
            # The publisher writes Linux_x86_64 where others write linux-amd64; the other platforms build it.
            path="/versity/versitygw/releases/download/v{version}/versitygw_v{version}_Linux_x86_64.tar.gz",
            checksums="/versity/versitygw/releases/download/v{version}/checksums.txt",
            platforms=("linux-amd64",),
            members={"versitygw": "versitygw_v{version}_Linux_x86_64/versitygw"},
        ),
        go=GoRecipe(
            module="versitygw",
            packages={"versitygw": "github.com/versity/versitygw/cmd/versitygw"},
            version_symbols=("main.Version",),
        ),
    ),
)

PROGRAMS: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def this_platform() -> str:
    """Such as `linux-amd64`, in the publishers' words."""
    machine = platform.machine().lower()
    arch = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}.get(machine, machine)
    return f"{sys.platform}-{arch}"
