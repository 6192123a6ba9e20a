"""Taking programs out of release archives; nothing outside the named folder is ever written."""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO

from compose.binaries.errors import SourceError

_BROKEN = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError)


def install_files(archive: Path, members: Mapping[str, str], folder: Path) -> None:
    """Put members of the archive into `folder` under new names, each by one rename.

    Args:
        archive: a .zip or .tar.gz.
        members: program name to the path inside the archive.
        folder: where the programs go.

    Raises:
        SourceError: if the archive is unreadable or unsafe, or lacks a member; nothing is installed then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in members:
        _remove_stale(folder, name)
    staged: list[tuple[Path, Path]] = []
    try:
        for name, member in members.items():
            staged.append((_stage(archive, member, folder, name), folder / name))
        for temporary, target in staged:
            temporary.replace(target)
    except _BROKEN as error:
        raise SourceError(
            f"{archive.name} is no readable archive ({error}); nothing was installed"
        ) from error
    except OSError as error:
        raise SourceError(
            f"cannot install into {folder} ({error.strerror or error}); nothing was installed"
        ) from error
    finally:
        for temporary, _ in staged:
            temporary.unlink(missing_ok=True)


def install_tree(archive: Path, program: str, target: Path) -> None:
    """Put the whole tar archive, without its top folder, at `target` by one rename.

    Args:
        archive: a .tar.gz.
        program: a file that must be in it, below the top folder.
        target: the folder to make; one that is there is replaced.

    Raises:
        SourceError: if the archive is unreadable or unsafe, or lacks the program; nothing is installed then.
    """
    if not hasattr(tarfile, "data_filter"):
        raise SourceError(f"unpacking {archive.name} safely needs Python 3.11.4 or newer")
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target.parent, target.name)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            _refuse_unsafe(archive, [member.name for member in members])
            tar.extractall(staging, members, filter="data")
        tops = list(staging.iterdir())
        if len(tops) != 1 or not (tops[0] / program).is_file():
            raise SourceError(f"{archive.name} holds no {program}; nothing was installed")
        if target.exists():
            target.rename(staging / "old")
        tops[0].rename(target)
    except _BROKEN as error:
        raise SourceError(
            f"{archive.name} is no readable archive ({error}); nothing was installed"
        ) from error
    except OSError as error:
        raise SourceError(
            f"cannot install {target} ({error.strerror or error}); nothing was installed"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _remove_stale(folder: Path, name: str) -> None:
    """Remove what a killed run left; the caller holds the program's lock, so nobody is at work on it."""
    for left in folder.glob(f".{name}.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _stage(archive: Path, member: str, folder: Path, name: str) -> Path:
    handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    path = Path(temporary)
    try:
        with os.fdopen(handle, "wb") as out:
            _copy(archive, member, out)
            out.flush()
            os.fsync(out.fileno())
        path.chmod(0o755)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _copy(archive: Path, member: str, out: IO[bytes]) -> None:
    missing = SourceError(f"{archive.name} holds no {member}; nothing was installed")
    if archive.name.endswith(".zip"):
        with zipfile.ZipFile(archive) as packed:
            _refuse_unsafe(archive, packed.namelist())
            if member not in packed.namelist():
                raise missing
            with packed.open(member) as source:
                shutil.copyfileobj(source, out)
        return
    with tarfile.open(archive) as tar:
        found = {entry.name.removeprefix("./"): entry for entry in tar.getmembers()}
        _refuse_unsafe(archive, list(found))
        file = tar.extractfile(found[member]) if member in found and found[member].isfile() else None
        if file is None:
            raise missing
        shutil.copyfileobj(file, out)


def _refuse_unsafe(archive: Path, names: list[str]) -> None:
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise SourceError(
                f"{archive.name} names {name!r}, outside its own folder; it is refused as tampered with"
            )
