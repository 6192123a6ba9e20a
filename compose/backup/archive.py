"""The one file that a backup is: a zip archive whose last member, the manifest, vouches for the others.

It is written in one pass, so that a dump needs no room twice, under a name that nobody takes for a backup.
Only whole and on disk does it get its own.
"""

import contextlib
import hashlib
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

import psutil

from compose.backup.manifest import Manifest, ManifestError, Member
from compose.model import StackError

MANIFEST = "manifest.json"
POSTGRES = "postgres.dump"
GRAFANA = "grafana.db"
PIECE = 1 << 20
_TO_BE_PACKED = (MANIFEST, GRAFANA)  # PostgreSQL has compressed its dump itself


class Writer:
    """The archive while it is written; see `written`."""

    def __init__(self, file: zipfile.ZipFile, taken_at: datetime) -> None:
        self._file = file
        self._taken_at = taken_at
        self.members: dict[str, Member] = {}

    def add(self, name: str, source: IO[bytes]) -> None:
        """Copy everything that `source` gives."""
        entry = zipfile.ZipInfo(name, self._taken_at.timetuple()[:6])
        entry.compress_type = zipfile.ZIP_DEFLATED if name in _TO_BE_PACKED else zipfile.ZIP_STORED
        entry.external_attr = 0o600 << 16
        digest, total = hashlib.sha256(), 0
        with self._file.open(entry, "w", force_zip64=True) as out:
            while piece := source.read(PIECE):
                digest.update(piece)
                total += len(piece)
                out.write(piece)
        self.members[name] = Member(total, digest.hexdigest())

    def close(self, manifest: Manifest) -> None:
        """Write what vouches for the rest."""
        with tempfile.SpooledTemporaryFile(PIECE) as text:
            text.write(manifest.text().encode())
            text.seek(0)
            self.add(MANIFEST, text)


@contextlib.contextmanager
def written(folder: Path, taken_at: datetime) -> Iterator[tuple[Writer, Path]]:
    """Write an archive; it is there, under the path that is given too, only when the block ends well.

    Raises:
        StackError: if the disk does not take it.
    """
    final = folder / f"yardstick-{taken_at.astimezone(UTC):%Y%m%dT%H%M%SZ}.zip"
    draft = folder / f".{final.name}.{os.getpid()}.part"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(folder)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as out:
                with zipfile.ZipFile(out, "w") as packed:
                    yield Writer(packed, taken_at), final
                out.flush()
                os.fsync(out.fileno())
            os.link(draft, final)  # unlike a rename it takes no other backup's place
        finally:
            draft.unlink(missing_ok=True)
        _sync(folder)
    except FileExistsError as error:
        raise StackError(f"{final} is there already; another backup was taken in the same second") from error
    except OSError as error:
        raise StackError(
            f"cannot write {final}: {error.strerror or error}; nothing was kept of it"
        ) from error


def _sweep(folder: Path) -> None:
    """Remove what backups that were killed have left."""
    for left in folder.glob(".yardstick-*.part"):
        writer = left.name.rsplit(".", 2)[1]
        if not (writer.isdecimal() and psutil.pid_exists(int(writer))):
            left.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Archive:
    """A backup that was read through and found whole."""

    path: Path
    manifest: Manifest

    @classmethod
    def of(cls, path: Path) -> "Archive":
        """Read all of it, and compare it with what its manifest says.

        Raises:
            StackError: if it is not there, damaged, of a newer format, or no backup at all.
        """
        try:
            with zipfile.ZipFile(path) as packed:
                manifest = _manifest(packed)
                for name, member in manifest.members.items():
                    _compare(packed, name, member)
        except FileNotFoundError:
            raise StackError(f"there is no {path}") from None
        except ManifestError as error:
            raise StackError(f"{path} cannot be restored: {error}") from error
        # What zipfile raises for an archive that someone, or some disk, has changed.
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as e:
            raise StackError(f"{path} cannot be restored: it is damaged, or no backup ({e})") from e
        except OSError as error:
            raise StackError(f"{path} cannot be read: {error.strerror or error}") from error
        return cls(path, manifest)

    @contextlib.contextmanager
    def member(self, name: str) -> Iterator[IO[bytes]]:
        """A member's bytes."""
        with zipfile.ZipFile(self.path) as packed, packed.open(name) as source:
            yield source


def _manifest(packed: zipfile.ZipFile) -> Manifest:
    if MANIFEST not in packed.namelist():
        raise ManifestError("it is no backup of this project: it has no manifest")
    manifest = Manifest.of(packed.read(MANIFEST))
    if POSTGRES not in manifest.members:
        raise ManifestError("its manifest names no dump of PostgreSQL")
    return manifest


def _compare(packed: zipfile.ZipFile, name: str, expected: Member) -> None:
    if name not in packed.namelist():
        raise ManifestError(f"it is damaged: {name} is missing")
    digest, total = hashlib.sha256(), 0
    with packed.open(name) as source:
        while piece := source.read(PIECE):
            digest.update(piece)
            total += len(piece)
    if (total, digest.hexdigest()) != (expected.bytes, expected.sha256):
        raise ManifestError(f"it is damaged: {name} is not what its manifest says")
