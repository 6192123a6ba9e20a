"""Live streams over WebSocket: JSON texts both ways, one object each."""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from observability import get_logger
from service.errors import FieldFault, InvalidRequestError, ServiceError
from service.infra.live.client import POLICY, TOO_BIG, UNSUPPORTED, LiveClient
from service.infra.live.hub import LiveHub
from service.infra.live.interface import Notice

log = get_logger(__name__)

HEARTBEAT = '{"type":"heartbeat"}'

Allow = Callable[[Iterable[str]], list[str]]
"""Topics as the client wrote them to topics it may see; raises a ServiceError."""


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Subscribe(_Message):
    """See these topics too, or no longer. Starts now: missed events are sent on connecting alone."""

    type: Literal["subscribe", "unsubscribe"]
    topics: list[str] = Field(min_length=1, max_length=100)


class Ping(_Message):
    """Answered with a pong."""

    type: Literal["ping"]


_MESSAGES: TypeAdapter[Subscribe | Ping] = TypeAdapter(
    Annotated[Subscribe | Ping, Field(discriminator="type")]
)


class LiveSocket:
    """One connection that was accepted, from joining to closing."""

    def __init__(
        self,
        socket: WebSocket,
        hub: LiveHub,
        allow: Allow,
        *,
        heartbeat: float,
        max_topics: int,
        max_message: int,
    ) -> None:
        self._socket = socket
        self._hub = hub
        self._allow = allow
        self._heartbeat = heartbeat
        self._max_topics = max_topics
        self._max_message = max_message

    async def run(self, topics: Iterable[str], *, after: str | None) -> None:
        """Send and listen until one side closes. Raises UnavailableError: the hub takes no client."""
        started, code = time.monotonic(), None
        with self._hub.joined("websocket", topics, after=after) as client:
            listening = asyncio.create_task(self._listen(client))
            try:
                async with client.attended():
                    await self._write(client)
                    code = client.close_code
            finally:
                listening.cancel()
            # Before it leaves the hub, which a drain waits for: the server does not wait for WebSockets.
            # It may be closed from the other side by now.
            with suppress(RuntimeError, TimeoutError, WebSocketDisconnect):
                async with asyncio.timeout(1):
                    await self._socket.close(POLICY if code is None else code)
        log.info(
            "live.ended",
            transport="websocket",
            ended="left" if code is None else "closed",
            closeCode=code,
            seconds=round(time.monotonic() - started, 3),
        )

    async def _write(self, client: LiveClient) -> None:
        while not client.done:
            items = await client.take(self._heartbeat)
            for text in [item.text for item in items] or [HEARTBEAT]:
                await self._socket.send_text(text)

    async def _listen(self, client: LiveClient) -> None:
        try:
            while client.close_code is None:
                message = await self._socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                self._take(client, message.get("text"))
        finally:
            if client.close_code is None:
                client.left()

    def _take(self, client: LiveClient, text: str | None) -> None:
        if text is None:
            client.end(UNSUPPORTED, error_notice(InvalidRequestError("Messages are text")))
            return
        if len(text) > self._max_message:
            error = InvalidRequestError(f"A message has at most {self._max_message} characters")
            client.end(TOO_BIG, error_notice(error))
            return
        try:
            self._obey(client, text)
        except ServiceError as error:
            client.offer(error_notice(error))

    def _obey(self, client: LiveClient, text: str) -> None:
        try:
            message = _MESSAGES.validate_json(text)
        except ValidationError as error:
            faults = [FieldFault(".".join(map(str, f["loc"])), f["msg"]) for f in error.errors()[:5]]
            raise InvalidRequestError("The message is not valid", fields=faults) from None
        if isinstance(message, Ping):
            client.offer(Notice("pong", {}))
            return
        if message.type == "unsubscribe":
            self._hub.unsubscribe(client, message.topics)
        else:
            topics = self._allow(message.topics)
            if len(client.topics.union(topics)) > self._max_topics:
                raise InvalidRequestError(f"At most {self._max_topics} topics")
            self._hub.subscribe(client, topics)
        client.offer(Notice("subscribed", {"topics": sorted(client.topics)}))


def error_notice(error: ServiceError) -> Notice:
    """A refusal, in the fields of the HTTP frame."""
    fields = [{"field": fault.field, "message": fault.message} for fault in error.fields]
    body = {"code": error.code, "message": error.message, "fields": fields}
    return Notice("error", {"statusCode": error.status, "error": body})


async def refuse(socket: WebSocket, error: ServiceError) -> None:
    """Say why, then close with 4000 + the HTTP status: a refused handshake could not say."""
    await socket.accept()
    with suppress(RuntimeError, WebSocketDisconnect):
        await socket.send_text(error_notice(error).text)
        await socket.close(4000 + error.status)
