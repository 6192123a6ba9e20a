"""Publish and subscribe: a connection of its own that comes back."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from observability import get_logger
from service.infra.redis.keys import Keyspace
from service.infra.redis.transport import Transport

log = get_logger(__name__)

_SILENCE_SECONDS = 10.0
_PAUSES = (0.1, 5.0)


@dataclass(frozen=True, slots=True)
class Message:
    """What was published, and the channel without the prefix."""

    channel: str
    data: bytes


class Subscription:
    """Iterate over it for messages; `ready` returns once the server has confirmed every channel.

    After ten seconds of silence the server is asked whether it is there. A connection that broke is made
    anew; `gaps` counts how often that happened.
    """

    def __init__(
        self,
        transport: Transport,
        keys: Keyspace,
        channels: Sequence[str],
        patterns: Sequence[str],
        on_gap: Callable[[], None] | None,
    ) -> None:
        if not channels and not patterns:
            raise ValueError("at least one channel or pattern is needed")
        self._transport, self._keys = transport, keys
        commands = (("SUBSCRIBE", *channels), ("PSUBSCRIBE", *patterns))
        self._commands = [command for command in commands if len(command) > 1]
        self._wanted = len(channels) + len(patterns)
        self._confirmed = 0
        self._on_gap = on_gap
        self._connection: AbstractConnection | None = None
        self._subscribed = asyncio.Event()
        self._restored = False
        self.gaps = 0

    async def ready(self) -> None:
        """Returns when subscribed. Somebody must iterate meanwhile."""
        await self._subscribed.wait()

    async def __aiter__(self) -> AsyncIterator[Message]:
        pause = _PAUSES[0]
        while True:
            try:
                connection = await self._connect()
                while True:
                    message = self._take(await _next(connection))
                    pause = _PAUSES[0]
                    if message is not None:
                        yield message
            except (RedisError, OSError, TimeoutError) as error:
                log.warning(
                    "redis.subscription_lost", reason=str(error) or type(error).__name__, retryIn=pause
                )
                await self.close()
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSES[1])

    async def close(self) -> None:
        if self._subscribed.is_set():
            self._subscribed.clear()
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def _connect(self) -> AbstractConnection:
        connection = self._connection = self._transport.pool.make()
        self._confirmed = 0
        await connection.connect()  # type: ignore[no-untyped-call]
        for command in self._commands:
            await connection.send_command(*command)
        return connection

    def _take(self, reply: Sequence[Any]) -> Message | None:
        match reply[0]:
            case b"message":
                return Message(self._keys.bare(reply[1]), reply[2])
            case b"pmessage":
                return Message(self._keys.bare(reply[2]), reply[3])
            case b"subscribe" | b"psubscribe":
                self._confirmed += 1
                if self._confirmed == self._wanted:
                    self._confirm()
        return None

    def _confirm(self) -> None:
        self._subscribed.set()
        if self._restored:
            self.gaps += 1
            self._transport.metrics.resubscribed.inc()
            if self._on_gap is not None:
                self._on_gap()
        self._restored = True


async def _next(connection: AbstractConnection) -> Sequence[Any]:
    """The next push of the server. Raises TimeoutError when it is silent even when asked."""
    reply = await connection.read_response(timeout=_SILENCE_SECONDS, disconnect_on_error=False)
    if reply is None:
        await connection.send_command("PING")
        reply = await connection.read_response(timeout=_SILENCE_SECONDS, disconnect_on_error=False)
        if reply is None:
            raise TimeoutError("the server is silent")
    found: Sequence[Any] = reply
    return found
