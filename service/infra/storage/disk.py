"""The blocking half of the local store: folders without symbolic links, files with their trailer.

A stored file is its content and behind it a trailer: JSON with type, name, size and ETag, its length, a mark.
One rename publishes both, and no crash leaves one without the other.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import orjson

from observability import get_logger
from service.infra.storage.errors import FileMissingError, FileTakenError
from service.infra.storage.interface import FileEntry, FileInfo

log = get_logger(__name__)

INCOMING = ".incoming"
"""Folder of uploads under way. No key begins with a dot, so no key reaches it."""
_MARK = b"YSTRAIL1"
_TAIL = 4 + len(_MARK)
# What Linux, and what the BSDs, answer to O_NOFOLLOW on a link; ENXIO: a socket or a pipe.
_LINK_ERRORS = (errno.ELOOP, errno.EMLINK, errno.ENXIO)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Trailer:
    """What is known of a file beside its bytes."""

    content_type: str
    etag: str
    name: str | None
    size: int

    def encoded(self) -> bytes:
        body = orjson.dumps(
            {"type": self.content_type, "etag": self.etag, "name": self.name, "size": self.size}
        )
        return body + len(body).to_bytes(4, "big") + _MARK


@contextmanager
def folder(root: Path, names: list[str], *, create: bool = False) -> Iterator[int]:
    """A descriptor of a folder below the root, reached step by step without following a symbolic link.

    Raises:
        FileNotFoundError, NotADirectoryError: there is no such folder; a link counts as none.
    """
    if create:
        root.mkdir(parents=True, exist_ok=True)
    current = os.open(root, _FOLDER & ~os.O_NOFOLLOW)
    try:
        for name in names:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o750, dir_fd=current)
                    os.fsync(current)
            below = os.open(name, _FOLDER, dir_fd=current)
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def create(root: Path, name: str) -> BinaryIO:
    """A new file among the uploads under way."""
    with folder(root, [INCOMING], create=True) as incoming:
        return os.fdopen(os.open(name, _CREATE, 0o640, dir_fd=incoming), "wb", buffering=0)


def write(file: BinaryIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def publish(
    root: Path, file: BinaryIO, name: str, key: str, trailer: Trailer, *, overwrite: bool
) -> datetime:
    """Make an upload the file of its key, durably; gives the time of its last change.

    Raises:
        FileTakenError: the key is taken, or a file stands where it needs a folder or the other way round.
    """
    write(file, trailer.encoded())
    os.fsync(file.fileno())
    *folders, last = key.split("/")
    try:
        with folder(root, [INCOMING]) as incoming, folder(root, folders, create=True) as target:
            # A link fails where something stands, and is atomic; a rename would replace it.
            move = os.replace if overwrite else _link
            move(name, last, src_dir_fd=incoming, dst_dir_fd=target)
            os.fsync(target)
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise FileTakenError from error
    return _modified(os.fstat(file.fileno()))


def discard(root: Path, name: str) -> None:
    """Remove an upload under way, if it is still there."""
    with suppress(FileNotFoundError, NotADirectoryError), folder(root, [INCOMING]) as incoming:
        os.unlink(name, dir_fd=incoming)


def sweep(root: Path, *, older_than: float) -> int:
    """Remove uploads not written to since that time (seconds of the epoch): their process died."""
    removed = 0
    with suppress(FileNotFoundError), folder(root, [INCOMING]) as incoming, os.scandir(incoming) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if entry.stat(follow_symlinks=False).st_mtime < older_than:
                    os.unlink(entry.name, dir_fd=incoming)
                    removed += 1
    return removed


def read_open(root: Path, key: str) -> tuple[BinaryIO, FileInfo]:
    """The file, at its begin, and what is known of it. Raises FileMissingError."""
    *folders, last = key.split("/")
    try:
        with folder(root, folders) as parent:
            file = _opened(last, parent)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileMissingError from error
    except OSError as error:
        if error.errno in _LINK_ERRORS:
            log.warning("files.link_refused", key=key)
            raise FileMissingError from error
        raise
    try:
        return file, _info(file, key)
    except BaseException:
        file.close()
        raise


def remove(root: Path, key: str) -> None:
    """Remove a file if it is there; its folders stay."""
    *folders, last = key.split("/")
    with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError), folder(root, folders) as parent:
        if not stat.S_ISREG(os.stat(last, dir_fd=parent, follow_symlinks=False).st_mode):
            return
        os.unlink(last, dir_fd=parent)
        os.fsync(parent)


def walk(root: Path, folders: list[str], *, limit: int, after: str) -> list[FileEntry]:
    """The files below a folder in the order of their keys."""
    found: list[FileEntry] = []
    with suppress(FileNotFoundError, NotADirectoryError), folder(root, folders) as start:
        _collect(start, "".join(f"{name}/" for name in folders), limit, after, found)
    return found


def _collect(parent: int, prefix: str, limit: int, after: str, found: list[FileEntry]) -> None:
    with os.scandir(parent) as entries:
        # With its slash a folder sorts where the keys below it do.
        names = sorted(
            f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
            for entry in entries
            if not entry.name.startswith(".") and not entry.is_symlink()
        )
    for name in names:
        if len(found) >= limit:
            return
        key = prefix + name
        # Only what lies behind `after`, or holds it.
        if key <= after and not after.startswith(key):
            continue
        with suppress(FileNotFoundError):
            if not name.endswith("/"):
                _append(parent, name, key, after, found)
                continue
            below = os.open(name[:-1], _FOLDER, dir_fd=parent)
            try:
                _collect(below, key, limit, after, found)
            finally:
                os.close(below)


def _append(parent: int, name: str, key: str, after: str, found: list[FileEntry]) -> None:
    if key <= after:
        return
    with suppress(FileMissingError), _opened(name, parent) as file:
        info = _info(file, key)
        found.append(FileEntry(key, info.size, info.modified_at))


def _opened(name: str, parent: int) -> BinaryIO:
    """Raises FileMissingError for a folder, a pipe and the like."""
    descriptor = os.open(name, _READ, dir_fd=parent)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileMissingError
    return os.fdopen(descriptor, "rb", buffering=0)


def _info(file: BinaryIO, key: str) -> FileInfo:
    """Raises FileMissingError for what the store has not written, and says so in the log."""
    status = os.fstat(file.fileno())
    tail = os.pread(file.fileno(), _TAIL, max(0, status.st_size - _TAIL))
    length = int.from_bytes(tail[:4], "big")
    size = status.st_size - _TAIL - length
    if len(tail) == _TAIL and tail[4:] == _MARK and size >= 0:
        with suppress(orjson.JSONDecodeError, KeyError):
            known = orjson.loads(os.pread(file.fileno(), length, size))
            if known["size"] == size:
                return FileInfo(key, size, known["type"], known["etag"], _modified(status), known["name"])
    log.error("files.not_ours", key=key, size=status.st_size)
    raise FileMissingError


def _link(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
    os.link(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=False)
    os.unlink(source, dir_fd=src_dir_fd)


def _modified(status: os.stat_result) -> datetime:
    return datetime.fromtimestamp(status.st_mtime, UTC)
