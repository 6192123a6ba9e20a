"""Where finished log lines go. A sink never raises and never blocks on anything but the write itself."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

_CHECK_SECONDS = 1.0


class Sink(Protocol):
    """Takes whole lines, newline included."""

    def write(self, line: bytes) -> None: ...

    def close(self) -> None: ...


class FileDescriptorSink:
    """Writes each line to a file descriptor with one `write`, so that a killed process has lost nothing.

    A line that cannot be written (disk full, closed pipe) is counted by `on_lost` and dropped; one notice per
    outage goes to standard error. A line cut short by a full disk is ended before the next one.
    """

    def __init__(
        self, descriptor: int, on_lost: Callable[[], None] | None = None, name: str = "output"
    ) -> None:
        self._fd = descriptor
        self._name = name
        self._on_lost = on_lost
        self._lock = threading.RLock()
        self._torn = False
        self._failing = False

    def write(self, line: bytes) -> None:
        with self._lock:
            try:
                self._put(b"\n" + line if self._torn else line)
            except OSError as error:
                self._lost(error)
            else:
                self._torn = self._failing = False

    def close(self) -> None:
        """Standard output and error belong to the process; nothing is closed."""

    def _put(self, line: bytes) -> None:
        written = os.write(self._fd, line)
        while written < len(line):
            self._torn = True
            written += os.write(self._fd, line[written:])

    def _lost(self, error: OSError) -> None:
        if self._on_lost is not None:
            self._on_lost()
        if not self._failing:
            self._failing = True
            notice = f"log lines are being lost: {self._name}: {error.strerror or error}\n"
            # There is no third place to say it, and the loss is counted.
            with suppress(OSError):
                os.write(2, notice.encode())


class RotatingFileSink(FileDescriptorSink):
    """Appends to a file and turns it over by size: `app.jsonl` -> `app.jsonl.1` ... `.N`, the oldest goes.

    Opened with O_APPEND, so that a tailing reader and a second writer are safe. A file that somebody moved or
    deleted is created again within a second. A failed rotation keeps writing to the file at hand.
    """

    def __init__(
        self, path: Path, max_bytes: int, backups: int, on_lost: Callable[[], None] | None = None
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._max_bytes = max_bytes
        self._backups = backups
        self._size = self._inode = 0
        self._retry_rotation_at = self._checked_at = 0.0
        super().__init__(self._open(), on_lost, str(path))

    def write(self, line: bytes) -> None:
        with self._lock:
            now = time.monotonic()
            try:
                if self._fd < 0 or now - self._checked_at >= _CHECK_SECONDS:
                    self._checked_at = now
                    self._reopen_if_moved()
                if self._size and self._size + len(line) > self._max_bytes and now >= self._retry_rotation_at:
                    self._rotate(now)
            except OSError as error:
                if self._fd < 0:
                    self._lost(error)
                    return
            super().write(line)

    def close(self) -> None:
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _put(self, line: bytes) -> None:
        super()._put(line)
        self._size += len(line)

    def _open(self) -> int:
        fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        status = os.fstat(fd)
        self._size, self._inode = status.st_size, status.st_ino
        return fd

    def _reopen_if_moved(self) -> None:
        try:
            moved = self._path.stat().st_ino != self._inode
        except FileNotFoundError:
            moved = True
        if moved or self._fd < 0:
            self._swap(self._open())

    def _swap(self, descriptor: int) -> None:
        old, self._fd = self._fd, descriptor
        if old >= 0:
            os.close(old)

    def _rotate(self, now: float) -> None:
        self._retry_rotation_at = now + _CHECK_SECONDS
        for number in range(self._backups, 0, -1):
            older = self._numbered(number)
            newer = self._numbered(number - 1) if number > 1 else self._path
            if newer.exists():
                newer.replace(older)
        if not self._backups:
            self._path.unlink(missing_ok=True)
        self._swap(self._open())
        self._retry_rotation_at = 0.0

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


class ConsoleSink:
    """Standard output as text, found anew for each line so that a test's capture sees it."""

    def write(self, line: bytes) -> None:
        sys.stdout.write(line.decode("utf-8", "replace"))
        sys.stdout.flush()

    def close(self) -> None:
        """Standard output belongs to the process."""
