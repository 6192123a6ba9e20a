"""Live streams over server-sent events (the WHATWG wire format, by FastAPI's own encoder)."""

import asyncio
import time
from collections.abc import Iterable

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from observability import get_logger
from service.infra.live.client import LiveClient
from service.infra.live.hub import LiveHub

log = get_logger(__name__)

HEARTBEAT = b": heartbeat\n\n"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class LiveStream(StreamingResponse):
    """The answer to one client: open until it leaves, is dropped, or the process drains.

    FastAPI's streaming of generators is not used: it holds three tasks and two queues for each client, and
    its heartbeat is fixed.

    Raises, before the answer starts:
        UnavailableError: the hub takes no client.
    """

    media_type = "text/event-stream"

    def __init__(self, hub: LiveHub, topics: Iterable[str], *, after: str | None, heartbeat: float) -> None:
        super().__init__((), headers=HEADERS)
        self._hub = hub
        self._topics = tuple(topics)
        self._after = after
        self._heartbeat = heartbeat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, ended = time.monotonic(), "left"
        with self._hub.joined("sse", self._topics, after=self._after) as client:
            listening = asyncio.create_task(_listen(client, receive))
            try:
                async with client.attended():
                    await self._write(client, send)
                    ended = "closed"
            finally:
                listening.cancel()
        log.info("live.ended", transport="sse", ended=ended, seconds=round(time.monotonic() - started, 3))

    async def _write(self, client: LiveClient, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        while not client.done:
            items = await client.take(self._heartbeat)
            body = b"".join(item.sse for item in items) or HEARTBEAT
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _listen(client: LiveClient, receive: Receive) -> None:
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
    finally:
        client.left()
