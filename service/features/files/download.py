"""The answer that carries a file: headers, conditions, one range; streamed and closed whatever happens."""

import re
from email.utils import format_datetime

import anyio
from fastapi import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from service.infra.storage.interface import ByteRange, FileInfo, OpenFile, Storage
from service.infra.storage.streams import disposition

# Digits enough for any file; more would be slow to read as a number.
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


async def download(storage: Storage, key: str, request: Request) -> Response:
    """200, 206 or 304, with or without its body as GET or HEAD asks.

    Raises:
        FileKeyError, FileMissingError, ByteRangeError, StorageUnavailableError.
    """
    wanted = request.headers.get("if-none-match")
    part = parse_range(request.headers.get("range"))
    if request.method == "HEAD" or wanted is not None or (part and "if-range" in request.headers):
        info = await storage.stat(key)
        if wanted is not None and _names(wanted, info.etag):
            return Response(status_code=304, headers=_validators(info))
        if request.method == "HEAD":
            headers = _headers(info) | {"Content-Length": str(info.size)}
            return Response(headers=headers, media_type=info.content_type)
        if request.headers.get("if-range", f'"{info.etag}"') != f'"{info.etag}"':
            part = None
    return _FileResponse(await storage.open(key, part), partial=part is not None)


def parse_range(header: str | None) -> ByteRange | None:
    """One range of bytes; for several, or none, the whole file is the answer (RFC 9110)."""
    match = _RANGE.fullmatch(header.strip()) if header else None
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return ByteRange(None, int(match[2]))
    start = int(match[1])
    if not match[2]:
        return ByteRange(start, None)
    last = int(match[2])
    return ByteRange(start, last + 1) if last >= start else None


class _FileResponse(StreamingResponse):
    def __init__(self, file: OpenFile, *, partial: bool) -> None:
        headers = _headers(file.info) | {"Content-Length": str(file.stop - file.start)}
        if partial:
            headers["Content-Range"] = f"bytes {file.start}-{file.stop - 1}/{file.info.size}"
        super().__init__(
            file.chunks, 206 if partial else 200, headers=headers, media_type=file.info.content_type
        )
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._file.close()


def _headers(info: FileInfo) -> dict[str, str]:
    # Always saved, never shown: whatever a file holds, it does not run on this origin.
    name = info.name or info.key.rpartition("/")[2]
    return _validators(info) | {
        "Content-Disposition": disposition(name),
        "Accept-Ranges": "bytes",
        # Keeps the compressing layer away: length, ranges and a strong ETag are of these very bytes.
        "Content-Encoding": "identity",
        "X-Content-Type-Options": "nosniff",
    }


def _validators(info: FileInfo) -> dict[str, str]:
    return {
        "ETag": f'"{info.etag}"',
        "Last-Modified": format_datetime(info.modified_at, usegmt=True),
        # In the client's own cache, and asked about before each use.
        "Cache-Control": "private, no-cache",
    }


def _names(header: str, etag: str) -> bool:
    """Whether If-None-Match names this ETag; weak and strong compare alike (RFC 9110)."""
    return any(each.strip().removeprefix("W/") in ("*", f'"{etag}"') for each in header.split(","))
