"""What a file store does, whichever one it is."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.infra.storage.errors import ByteRangeError

MAX_URL_SECONDS = 7 * 24 * 3600
"""S3 signs for no longer."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A stored file; `size` in bytes, `etag` without quotes and new with every write, `name` for people."""

    key: str
    size: int
    content_type: str
    etag: str
    modified_at: datetime
    name: str | None


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A line of a listing."""

    key: str
    size: int
    modified_at: datetime


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes from `start` to before `stop`, which may lie behind the end; without `start`, the last `stop`."""

    start: int | None
    stop: int | None

    def resolve(self, size: int) -> tuple[int, int]:
        """Start and end (exclusive) in a file of this size. Raises ByteRangeError."""
        if self.start is None:
            start, stop = max(0, size - (self.stop or 0)), size
        else:
            start, stop = self.start, size if self.stop is None else min(self.stop, size)
        if start >= stop:
            raise ByteRangeError(size)
        return start, stop


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file being read: bytes `start` to before `stop`. Iterate `chunks` once, and always `close`."""

    info: FileInfo
    start: int
    stop: int
    chunks: AsyncIterator[bytes]
    close: Callable[[], Awaitable[None]]


class Storage(Protocol):
    """Files under keys (`keys.py`), streamed both ways in constant memory.

    Every method but `ping` and `close` raises FileKeyError for a key that is not one, and
    StorageUnavailableError when the store does not answer.
    """

    engine: str

    async def put(
        self,
        key: str,
        stream: AsyncIterable[bytes],
        *,
        content_type: str,
        name: str | None = None,
        overwrite: bool = False,
    ) -> FileInfo:
        """Store a file. It is there whole or not at all, also when the stream fails half-way.

        Raises:
            FileTakenError: the key is taken and `overwrite` is false.
            StorageFullError: no space left.
        """

    async def open(self, key: str, part: ByteRange | None = None) -> OpenFile:
        """Open a file, or a part of it, for reading. Raises FileMissingError, ByteRangeError."""

    async def stat(self, key: str) -> FileInfo:
        """Raises FileMissingError."""

    async def exists(self, key: str) -> bool: ...

    async def delete(self, key: str) -> None:
        """Delete a file. One that is not there is no error: afterwards it is gone either way."""

    async def list(self, folder: str = "", *, limit: int = 1000, after: str = "") -> list[FileEntry]:
        """The first files below a folder in the order of their keys, those after the key `after`."""

    async def signed_url(self, key: str, seconds: int) -> str:
        """A URL that reads this file, for so long (1 to MAX_URL_SECONDS), without further credentials."""

    async def ping(self) -> None:
        """One cheap round trip. Raises StorageUnavailableError."""

    async def close(self) -> None: ...
