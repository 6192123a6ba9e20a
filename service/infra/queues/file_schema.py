"""The queue file: one SQLite database, its one table, and what to say when it cannot be opened."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from service.errors import StartError, UnavailableError

OPTIONS = "mode=rw"
BUSY_SECONDS = 5.0
"""Longest wait for the other processes that write."""

_APPLICATION = 0x59514A31
_VERSION = 1
_WAL_LIMIT = 64 << 20

# `due` and `lease` are microseconds of the epoch; a job with a lease runs. IDs are never used twice, so that
# a late acknowledgement cannot hit a newer job.
_SCHEMA = f"""
CREATE TABLE jobs(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  job_id TEXT NOT NULL,
  priority INTEGER NOT NULL,
  due INTEGER NOT NULL,
  lease INTEGER,
  owner INTEGER,
  deliveries INTEGER NOT NULL DEFAULT 0,
  body BLOB NOT NULL);
CREATE INDEX jobs_by_job_id ON jobs(job_id);
CREATE INDEX jobs_ready ON jobs(priority, due, id) WHERE lease IS NULL;
CREATE INDEX jobs_leased ON jobs(lease) WHERE lease IS NOT NULL;
PRAGMA user_version = {_VERSION};
PRAGMA application_id = {_APPLICATION};
"""

_LOCKLESS = (sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_IOERR_LOCK, sqlite3.SQLITE_IOERR_SHMLOCK)
_LOCKLESS_TEXT = "its file system has no locks or no shared memory for them; put it on a local disk"


def now_us() -> int:
    return time.time_ns() // 1000


def open_file(path: Path, *, create: bool) -> sqlite3.Connection:
    """A connection to the file, made with mode 600 if it is not there and `create`; its journal is a WAL.

    Raises:
        StartError: it can never be the queue file as things are; the text says what to do.
        UnavailableError: it is locked, missing or the disk is full.
    """
    try:
        _prepare(path, create=create)
    except OSError as error:
        raise _fault(path, f"{error.strerror}; choose a place that this user may write to") from error
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?{OPTIONS}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        _set_up(path, connection)
    except BaseException as error:
        if connection is not None:
            connection.close()
        if isinstance(error, sqlite3.Error):
            raise _translate(path, error) from error
        raise
    return connection


def _prepare(path: Path, *, create: bool) -> None:
    """The file exists and is ours. It is never opened here: closing it would drop this process's locks."""
    if create and not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        except FileExistsError:
            pass
        else:
            _sync_folder(path.parent)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise UnavailableError("The queue file is gone") from None
    if not path.is_file():
        raise _fault(
            path, f"{'is a folder' if path.is_dir() else 'is no file'}; name a file, such as {path}.db"
        )
    if not os.access(path, os.R_OK | os.W_OK) or not os.access(path.parent, os.W_OK | os.X_OK):
        raise _fault(path, "this user may not write to the file and its folder; give both to the user")
    if status.st_mode & 0o077:
        path.chmod(0o600)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _set_up(path: Path, connection: sqlite3.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise _fault(path, _LOCKLESS_TEXT)
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA journal_size_limit = {_WAL_LIMIT}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        _create_table(path, connection)
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    # From here on the writer waits by itself, in shorter steps than SQLite's.
    connection.execute("PRAGMA busy_timeout = 0")


def _create_table(path: Path, connection: sqlite3.Connection) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == _APPLICATION:
        if version != _VERSION:
            raise _fault(path, f"is of version {version}, and this release reads version {_VERSION}")
        return
    if connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise _fault(path, "is a database of something else; name another file")
    for statement in _SCHEMA.split(";\n"):
        connection.execute(statement)


def check_file(path: Path) -> None:
    """Read the whole file once. Raises StartError if it is damaged, UnavailableError if it cannot be read."""
    try:
        with closing(open_file(path, create=True)) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        raise _translate(path, error) from error
    if found != "ok":
        raise _damaged(path, found)


def _translate(path: Path, error: sqlite3.Error) -> Exception:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code in _LOCKLESS:
        return _fault(path, _LOCKLESS_TEXT)
    match code & 0xFF:
        case sqlite3.SQLITE_NOTADB:
            return _fault(path, "is no SQLite database; name another file, or move this one away")
        case sqlite3.SQLITE_CORRUPT:
            return _damaged(path, str(error))
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return _fault(path, f"{error}; give the file and its folder to this user, on a writable disk")
    return UnavailableError("The queue file cannot be used")


def _damaged(path: Path, reason: str) -> StartError:
    return _fault(
        path,
        f"is damaged ({reason.splitlines()[-1]}); with all processes stopped, save what is left by"
        f" `sqlite3 {path} .recover | sqlite3 {path}.new` and put that in its place, or move it away",
    )


def _fault(path: Path, text: str) -> StartError:
    return StartError(f"QUEUE_FILE_PATH: {path}: {text}")
