"""Files on the local disk, below one root folder."""

import asyncio
import errno
import os
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

from observability import get_logger
from service.infra.storage import disk
from service.infra.storage.disk import Trailer
from service.infra.storage.errors import FileMissingError, StorageFullError, StorageUnavailableError
from service.infra.storage.interface import ByteRange, FileEntry, FileInfo, OpenFile
from service.infra.storage.keys import check_folder, check_key
from service.infra.storage.signing import UrlSigner
from service.infra.storage.streams import in_thread, pieces

log = get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

READ_BYTES = 1 << 18
STALE_SECONDS = 3600.0
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LocalStorage:
    """Implements Storage. Several processes may share the root, if it is one file system.

    A file is written beside its place, synced, and then linked into it: readers see all of it or nothing, a
    power cut loses nothing that was answered. Blocking calls run in threads. What a killed process was
    writing is removed by the first upload after an hour.
    """

    engine = "local"

    def __init__(self, root: Path, signer: UrlSigner) -> None:
        self._root = root.absolute()
        self._signer = signer
        self._swept_at = float("-inf")

    async def put(
        self,
        key: str,
        stream: AsyncIterable[bytes],
        *,
        content_type: str,
        name: str | None = None,
        overwrite: bool = False,
    ) -> FileInfo:
        check_key(key)
        await self._sweep()
        upload = secrets.token_hex(16)
        file: BinaryIO | None = None
        size = 0
        try:
            file = await _blocking(disk.create, self._root, upload)
            async for piece in pieces(stream):
                await _blocking(disk.write, file, piece)
                size += len(piece)
            trailer = Trailer(content_type, secrets.token_hex(16), name, size)
            modified = await _blocking(
                disk.publish, self._root, file, upload, key, trailer, overwrite=overwrite
            )
        finally:
            await in_thread(self._leave, file, upload)
        return FileInfo(key, size, content_type, trailer.etag, modified, name)

    async def open(self, key: str, part: ByteRange | None = None) -> OpenFile:
        check_key(key)
        file, info = await _blocking(disk.read_open, self._root, key)
        try:
            start, stop = part.resolve(info.size) if part else (0, info.size)
        except BaseException:
            file.close()
            raise
        return OpenFile(info, start, stop, _chunks(file, start, stop), partial(in_thread, file.close))

    async def stat(self, key: str) -> FileInfo:
        check_key(key)
        file, info = await _blocking(disk.read_open, self._root, key)
        await in_thread(file.close)
        return info

    async def exists(self, key: str) -> bool:
        try:
            await self.stat(key)
        except FileMissingError:
            return False
        return True

    async def delete(self, key: str) -> None:
        check_key(key)
        await _blocking(disk.remove, self._root, key)

    async def list(self, folder: str = "", *, limit: int = 1000, after: str = "") -> list[FileEntry]:
        names = check_folder(folder).split("/") if folder else []
        return await _blocking(disk.walk, self._root, names, limit=limit, after=after)

    async def signed_url(self, key: str, seconds: int) -> str:
        return self._signer.url(check_key(key), seconds)

    async def ping(self) -> None:
        await _blocking(self._probe)

    async def close(self) -> None:
        """Nothing is open between two calls."""

    def _probe(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        if not os.access(self._root, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "not writable", str(self._root))

    def _leave(self, file: BinaryIO | None, upload: str) -> None:
        if file is not None:
            file.close()
        disk.discard(self._root, upload)

    async def _sweep(self) -> None:
        if time.monotonic() - self._swept_at < STALE_SECONDS:
            return
        self._swept_at = time.monotonic()
        removed = await _blocking(disk.sweep, self._root, older_than=time.time() - STALE_SECONDS)
        if removed:
            log.info("files.swept", removed=removed)


async def _chunks(file: BinaryIO, start: int, stop: int) -> AsyncIterator[bytes]:
    while start < stop:
        chunk = await _blocking(os.pread, file.fileno(), min(READ_BYTES, stop - start), start)
        if not chunk:
            # The trailer promised more; the length of the answer is already sent.
            raise StorageUnavailableError("The file ends too early")
        start += len(chunk)
        yield chunk
        # A file from the page cache never waits: let others have their turn.
        await asyncio.sleep(0)


async def _blocking(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A call in a thread; what the operating system says becomes an error that a client may see."""
    try:
        return await in_thread(call, *args, **kwargs)
    except OSError as error:
        log.warning("files.fault", error=errno.errorcode.get(error.errno or 0, "?"), reason=error.strerror)
        if error.errno in _FULL:
            raise StorageFullError from error
        raise StorageUnavailableError from error
