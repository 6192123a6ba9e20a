"""Streams of bytes between clients and stores."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from functools import partial
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

import anyio
import anyio.to_thread

from observability import get_logger

log = get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

PIECE_BYTES = 1 << 20


async def pieces(stream: AsyncIterable[bytes], size: int = PIECE_BYTES) -> AsyncIterator[bytes]:
    """The same bytes in pieces of at least `size`, but for the last: a network's chunks are small."""
    waiting: list[bytes] = []
    held = 0
    async for chunk in stream:
        waiting.append(bytes(chunk))
        held += len(chunk)
        if held >= size:
            yield b"".join(waiting)
            waiting, held = [], 0
    if held:
        yield b"".join(waiting)


class Counted:
    """The same stream; `size` is what has passed so far."""

    def __init__(self, stream: AsyncIterable[bytes]) -> None:
        self._stream = stream
        self.size = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self.size += len(chunk)
            yield chunk


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call in a thread and wait for its end even when cancelled.

    Otherwise the descriptor that it writes to would be closed, and perhaps given to another file, under it.
    """
    running = asyncio.ensure_future(anyio.to_thread.run_sync(partial(call, *args, **kwargs)))
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not running.done():
            try:
                await asyncio.wait({running})
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is None:
        return running.result()
    if (fault := running.exception()) is not None:
        log.warning("files.cut_off", error=type(fault).__name__)
    raise cancelled


def disposition(name: str) -> str:
    """The value of Content-Disposition (RFC 6266): saved under this name, never shown in the page."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%;' else "_" for c in name)
    value = f'attachment; filename="{plain}"'
    return value if plain == name else f"{value}; filename*=UTF-8''{quote(name, safe='')}"


class Pipe:
    """Hands pieces from a coroutine that writes to one that iterates; holds one at a time."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._failed = asyncio.Event()

    async def send(self, piece: bytes | None, reader: asyncio.Task[Any]) -> None:
        """Wait until there is room. Raises what the reader raised when it ended before."""
        sending = asyncio.ensure_future(self._queue.put(piece))
        try:
            await asyncio.wait({sending, reader}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
        if reader.done():
            reader.result()

    async def end(self, reader: asyncio.Task[Any]) -> None:
        """The reader's iteration ends well after what was sent."""
        await self.send(None, reader)

    def fail(self) -> None:
        """The reader's iteration ends in InterruptedUploadError."""
        self._failed.set()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces()

    async def _pieces(self) -> AsyncIterator[bytes]:
        failed = asyncio.ensure_future(self._failed.wait())
        try:
            while True:
                taking = asyncio.ensure_future(self._queue.get())
                await asyncio.wait({taking, failed}, return_when=asyncio.FIRST_COMPLETED)
                if failed.done():
                    taking.cancel()
                    raise InterruptedUploadError
                piece = taking.result()
                if piece is None:
                    return
                yield piece
        finally:
            failed.cancel()


class InterruptedUploadError(Exception):
    """The stream of an upload ended early; tells the store's client to abort."""
