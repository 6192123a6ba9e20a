"""A bell between processes: a named pipe beside the queue file that idle consumers listen to."""

import asyncio
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from observability import get_logger

log = get_logger(__name__)


class Bell:
    """Rings at least one of the processes that listen. Where it cannot be had, polling remains.

    A byte in the pipe may be read by one listener before another has seen it, so that a ring is a hint and no
    promise. It is opened for reading and writing: neither end then waits for the other or misses it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pipe: int | None = None
        self._tried = False

    @property
    def works(self) -> bool:
        return self._pipe is not None

    def ring(self) -> None:
        pipe = self._open()
        if pipe is not None:
            with suppress(OSError):
                os.write(pipe, b"!")

    def listen(self, heard: Callable[[], None]) -> None:
        """Call `heard` in the running loop whenever the bell rings, until `deafen`."""
        pipe = self._open()
        if pipe is not None:
            asyncio.get_running_loop().add_reader(pipe, _hear, pipe, heard)

    def deafen(self) -> None:
        if self._pipe is not None:
            asyncio.get_running_loop().remove_reader(self._pipe)

    def close(self) -> None:
        pipe, self._pipe = self._pipe, None
        if pipe is not None:
            os.close(pipe)

    def _open(self) -> int | None:
        if not self._tried:
            self._tried = True
            try:
                with suppress(FileExistsError):
                    os.mkfifo(self._path, 0o600)
                pipe = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                log.info("queue.no_bell", path=str(self._path), reason=error.strerror)
                return None
            if stat.S_ISFIFO(os.fstat(pipe).st_mode):
                self._pipe = pipe
            else:
                os.close(pipe)
        return self._pipe


def _hear(pipe: int, heard: Callable[[], None]) -> None:
    with suppress(OSError):
        os.read(pipe, 65_536)
    heard()
