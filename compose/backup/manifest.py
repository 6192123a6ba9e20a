"""What a backup says of itself: `manifest.json` in the archive."""

import json
import re
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from compose.paths import ROOT

KIND = "yardstick-backup"
FORMAT = 1
"""Raised when an older `restore` could no longer read what is written."""

_REVISIONS = ROOT / "service" / "db" / "migrations" / "versions"


class ManifestError(ValueError):
    """It is not what a backup says of itself; the message says in what."""


@dataclass(frozen=True)
class Table:
    """A table's content. `sha256` is the XOR of the hashes of its rows, so their order does not matter."""

    rows: int
    sha256: str


@dataclass(frozen=True)
class Member:
    """A file of the archive."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """All that is known of a backup.

    Attributes:
        taken_at: ISO 8601, UTC; the moment of PostgreSQL's snapshot, within a second.
        mode: how the stack ran, `native` or `docker`.
        commit: of the checkout, or empty where it is none.
        postgres: version of the server.
        database_bytes: what the database took on disk.
        revision: of the schema, or empty where it was never migrated.
        tables: by `schema.table`.
        members: by name in the archive.
    """

    taken_at: str
    mode: str
    version: str
    commit: str
    postgres: str
    database_bytes: int
    revision: str
    tables: Mapping[str, Table]
    members: Mapping[str, Member]

    def text(self) -> str:
        return json.dumps({"kind": KIND, "format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def of(cls, text: bytes) -> "Manifest":
        """Read it. Raises ManifestError."""
        try:
            raw = json.loads(text)
        except ValueError as error:
            raise ManifestError(f"its manifest is no JSON ({error})") from error
        if not isinstance(raw, dict) or raw.pop("kind", None) != KIND:
            raise ManifestError("it is no backup of this project")
        found = raw.pop("format", None)
        if not isinstance(found, int) or found < 1:
            raise ManifestError("its manifest states no format")
        if found > FORMAT:
            raise ManifestError(
                f"it has format {found}, and this version reads up to {FORMAT}; use the version that made it"
            )
        try:
            tables = {str(name): Table(**values) for name, values in raw.pop("tables").items()}
            members = {str(name): Member(**values) for name, values in raw.pop("members").items()}
            return cls(tables=tables, members=members, **raw)
        except (KeyError, TypeError, AttributeError) as error:
            raise ManifestError(f"its manifest is not complete ({error})") from error


def version() -> str:
    """Of this project."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return str(tomllib.load(file)["project"]["version"])


def commit() -> str:
    """The checkout's commit, with `+` if something was changed since; empty where there is no checkout."""
    try:
        done = subprocess.run(
            ["/usr/bin/env", "git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty=+"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def revisions() -> frozenset[str]:
    """The schema revisions that this code knows, read from the migrations without running them."""
    found = (
        re.search(r'^revision\b[^=\n]*=\s*"([^"]+)"', file.read_text("utf-8"), re.MULTILINE)
        for file in _REVISIONS.glob("*.py")
    )
    return frozenset(match[1] for match in found if match)
