"""Files in a bucket of S3, or of anything that speaks it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import anyio
import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from observability import get_logger
from service.errors import ServiceError
from service.infra.storage.errors import (
    FileMissingError,
    FileTakenError,
    StorageFullError,
    StorageUnavailableError,
)
from service.infra.storage.interface import MAX_URL_SECONDS, ByteRange, FileEntry, FileInfo, OpenFile
from service.infra.storage.keys import check_folder, check_key
from service.infra.storage.streams import Counted, Pipe, disposition, pieces
from service.settings import FilesSettings

if TYPE_CHECKING:
    from obstore import Attributes, GetOptions, GetResult, OffsetRange, PutMode, PutResult, SuffixRange
    from obstore.store import S3Config

log = get_logger(__name__)

PART_BYTES = 8 << 20
"""S3 takes 10,000 parts of at least 5 MiB: with these, files up to 80 GB."""
PARTS_IN_FLIGHT = 2
READ_BYTES = 1 << 20
_NAME = "name"
_PROBE = "health-probe"


class S3Storage:
    """Implements Storage.

    A file of up to PART_BYTES is one conditional request: of two writers of one key, one gets FileTakenError.
    A larger one is a multipart upload, for which the key is checked before the first part and again before
    the last: two writers that end within the same milliseconds both succeed and the later one stays. Keys
    made by `keys.py` hold a UUID and do not meet. What a killed process had uploaded stays as an unfinished
    multipart upload; let a lifecycle rule of the bucket abort those.
    """

    engine = "s3"

    def __init__(self, settings: FilesSettings) -> None:
        self._store = _store(settings, settings.s3_endpoint)
        public = settings.s3_public_endpoint or settings.s3_endpoint
        self._signing = self._store if public == settings.s3_endpoint else _store(settings, public)

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
        attributes: Attributes = {"Content-Type": content_type}
        if name is not None:
            attributes |= {"Content-Disposition": disposition(name), _NAME: quote(name)}
        parts = pieces(stream, PART_BYTES)
        first = await anext(parts, b"")
        size = len(first)
        if len(first) < PART_BYTES:
            mode: PutMode = "overwrite" if overwrite else "create"
            try:
                result = await obstore.put_async(self._store, key, first, mode=mode, attributes=attributes)
            except (BaseError, OSError) as error:
                raise _translated(error) from error
        else:
            counted = Counted(parts)
            result = await self._put_parts(key, first, counted, attributes, overwrite=overwrite)
            size += counted.size
        # Asking for what was written would cost a request, and could fail after the file is there.
        modified = datetime.now(UTC).replace(microsecond=0)
        return FileInfo(key, size, content_type, _etag(result["e_tag"]), modified, name)

    async def open(self, key: str, part: ByteRange | None = None) -> OpenFile:
        check_key(key)
        options: GetOptions = {}
        if part is not None:
            options["range"] = _range(part)
        try:
            result = await obstore.get_async(self._store, key, options=options)
        except (BaseError, OSError) as error:
            if part is not None and "InvalidRange" in str(error):
                part.resolve((await self.stat(key)).size)
            raise _translated(error) from error
        start, stop = result.range
        chunks = _chunks(result)
        return OpenFile(_info(key, result), start, stop, chunks, chunks.aclose)

    async def stat(self, key: str) -> FileInfo:
        check_key(key)
        try:
            return _info(key, await obstore.get_async(self._store, key, options={"head": True}))
        except (BaseError, OSError) as error:
            raise _translated(error) from error

    async def exists(self, key: str) -> bool:
        try:
            await self.stat(key)
        except FileMissingError:
            return False
        return True

    async def delete(self, key: str) -> None:
        check_key(key)
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise _translated(error) from error

    async def list(self, folder: str = "", *, limit: int = 1000, after: str = "") -> list[FileEntry]:
        check_folder(folder)
        found: list[FileEntry] = []
        listing = obstore.list(
            self._store, folder or None, offset=after or None, chunk_size=max(1, min(limit, 1000))
        )
        try:
            async for batch in listing:
                found += [FileEntry(each["path"], each["size"], each["last_modified"]) for each in batch]
                if len(found) >= limit:
                    break
        except (BaseError, OSError) as error:
            raise _translated(error) from error
        return found[:limit]

    async def signed_url(self, key: str, seconds: int) -> str:
        check_key(key)
        if not 1 <= seconds <= MAX_URL_SECONDS:
            raise ValueError(f"a signed URL lives 1 to {MAX_URL_SECONDS} seconds, not {seconds}")
        try:
            return await obstore.sign_async(self._signing, "GET", key, timedelta(seconds=seconds))
        except (BaseError, OSError) as error:
            raise _translated(error) from error

    async def ping(self) -> None:
        await self.exists(_PROBE)

    async def close(self) -> None:
        """Connections close with the process."""

    async def _put_parts(
        self, key: str, first: bytes, rest: AsyncIterable[bytes], attributes: "Attributes", *, overwrite: bool
    ) -> "PutResult":
        """A multipart upload, aborted if the store fails, the stream fails, or the caller is cancelled."""
        await self._refuse_taken(key, overwrite=overwrite)
        pipe = Pipe()
        uploading = asyncio.create_task(self._upload(key, pipe, attributes), name="s3-upload")
        try:
            await pipe.send(first, uploading)
            async for piece in rest:
                await pipe.send(piece, uploading)
            await self._refuse_taken(key, overwrite=overwrite)
            await pipe.end(uploading)
            return await asyncio.shield(uploading)
        except BaseException:
            pipe.fail()
            with anyio.CancelScope(shield=True):
                await asyncio.wait({uploading})
            if not uploading.cancelled() and (fault := uploading.exception()) is not None:
                log.info("files.upload_aborted", error=type(fault).__name__)
            raise

    async def _upload(self, key: str, pipe: Pipe, attributes: "Attributes") -> "PutResult":
        try:
            return await obstore.put_async(
                self._store,
                key,
                pipe,
                attributes=attributes,
                use_multipart=True,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_IN_FLIGHT,
            )
        except (BaseError, OSError) as error:
            raise _translated(error) from error

    async def _refuse_taken(self, key: str, *, overwrite: bool) -> None:
        if not overwrite and await self.exists(key):
            raise FileTakenError


def _store(settings: FilesSettings, endpoint: str) -> S3Store:
    """Without a key, obstore looks where AWS leaves one for the machine: environment, container, instance."""
    config: S3Config = {"region": settings.s3_region, "virtual_hosted_style_request": not endpoint}
    if endpoint:
        config["endpoint"] = endpoint
    if settings.s3_secret_key is not None:
        config["access_key_id"] = settings.s3_access_key
        config["secret_access_key"] = settings.s3_secret_key.get_secret_value()
    return S3Store(
        settings.s3_bucket,
        config=config,
        client_options={
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=settings.s3_connect_timeout_seconds),
            "read_timeout": timedelta(seconds=settings.s3_read_timeout_seconds),
            # Of a whole transfer, which takes as long as the client reads; the one above finds a dead store.
            "timeout": timedelta(hours=12),
        },
        retry_config={
            "max_retries": settings.s3_retries,
            "retry_timeout": timedelta(seconds=30),
            "backoff": {
                "init_backoff": timedelta(milliseconds=100),
                "max_backoff": timedelta(seconds=2),
                "base": 2,
            },
        },
    )


async def _chunks(result: "GetResult") -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in result.stream(min_chunk_size=READ_BYTES):
            yield bytes(chunk)
    except (BaseError, OSError) as error:
        raise _translated(error) from error


def _range(part: ByteRange) -> "tuple[int, int] | OffsetRange | SuffixRange":
    if part.start is None:
        return {"suffix": part.stop or 0}
    return {"offset": part.start} if part.stop is None else (part.start, part.stop)


def _info(key: str, result: "GetResult") -> FileInfo:
    meta, attributes = result.meta, result.attributes
    name = attributes.get(_NAME)
    return FileInfo(
        key=key,
        size=meta["size"],
        content_type=attributes.get("Content-Type") or "application/octet-stream",
        etag=_etag(meta["e_tag"]),
        modified_at=meta["last_modified"],
        name=None if name is None else unquote(name),
    )


def _etag(quoted: str | None) -> str:
    return (quoted or "").removeprefix("W/").strip('"')


def _translated(error: Exception) -> ServiceError:
    match error:
        # A bucket or a user that is not there is 404 too, and then the answer says so.
        case FileNotFoundError() if "<Code>" not in str(error) or "<Code>NoSuchKey<" in str(error):
            return FileMissingError()
        case AlreadyExistsError() | PreconditionError():
            return FileTakenError()
    # Its later lines hold the whole exchange; the first has host, path and status, and no credentials.
    reason = str(error).partition("\n")[0]
    log.warning("files.fault", error=type(error).__name__, reason=reason)
    full = any(word in str(error) for word in ("XMinioStorageFull", "507 Insufficient", "QuotaExceeded"))
    return StorageFullError() if full else StorageUnavailableError()
