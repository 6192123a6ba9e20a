"""One client of a live stream: what it may still get, and how it is let go."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Literal

from service.infra.live.interface import Item, LiveEvent, Notice, Position, Transport

Reason = Literal["slow", "cut"]
BATCH = 100

UNSUPPORTED, POLICY, TOO_BIG, RESTART = 1003, 1008, 1009, 1012
"""Close codes of WebSocket (RFC 6455)."""


class LiveClient:
    """The queue between the hub and one connection, bounded by `limit` items.

    The hub offers and never waits. What was missed before the client came is not counted against the limit.
    """

    __slots__ = (
        "_backlog",
        "_buffer",
        "_cut",
        "_dropped",
        "_limit",
        "_on_drop",
        "_wake",
        "close_code",
        "cursor",
        "topics",
        "transport",
    )

    def __init__(
        self,
        transport: Transport,
        topics: Iterable[str],
        cursor: Position,
        *,
        limit: int,
        on_drop: Callable[["LiveClient", Reason], None],
    ) -> None:
        self.transport = transport
        self.topics = set(topics)
        self.cursor = cursor
        self.close_code: int | None = None
        """Set once nothing more will be offered; what is queued is still to be sent."""
        self._limit = limit
        self._on_drop = on_drop
        self._backlog: deque[Item] = deque()
        self._buffer: deque[Item] = deque()
        self._wake = asyncio.Event()
        self._cut: asyncio.Timeout | None = None
        self._dropped = False

    @property
    def done(self) -> bool:
        """Everything was taken, and there will be no more."""
        return self.close_code is not None and not self._buffer and not self._backlog

    def replay(self, items: Iterable[Item]) -> None:
        """Send these first."""
        self._backlog.extend(items)
        self._wake.set()

    def offer(self, item: Item) -> bool:
        """Queue for sending unless the client has had it. A client whose queue is full is dropped."""
        if self._dropped or self.close_code is not None:
            return False
        if isinstance(item, LiveEvent):
            if item.position <= self.cursor:
                return False
            self.cursor = item.position
        if len(self._buffer) >= self._limit:
            self.drop("slow")
            return False
        self._buffer.append(item)
        self._wake.set()
        return True

    def end(self, code: int, notice: Notice | None = None) -> None:
        """Send what is queued and the notice, then close."""
        if self.close_code is not None or self._dropped:
            return
        if notice is not None:
            self._buffer.append(notice)
        self.close_code = code
        self._wake.set()

    def drop(self, reason: Reason) -> None:
        """Let go at once, also in the middle of sending."""
        if self._dropped:
            return
        self._dropped = True
        self._backlog.clear()
        self._buffer.clear()
        self._on_drop(self, reason)
        self._interrupt()

    def left(self) -> None:
        """The connection is gone: whoever is sending or waiting stops."""
        self._dropped = True
        self._interrupt()

    @asynccontextmanager
    async def attended(self) -> AsyncIterator[None]:
        """Around the connection's sending: ends quietly in the middle of it when the client is let go."""
        with suppress(TimeoutError):
            async with asyncio.timeout(None) as cut:
                self._cut = cut
                if self._dropped:
                    self._interrupt()
                try:
                    yield
                finally:
                    self._cut = None

    async def take(self, wait: float) -> list[Item]:
        """The next items, at most BATCH of them; none when nothing came in `wait` seconds."""
        if not self._backlog and not self._buffer and self.close_code is None:
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()
        queue = self._backlog or self._buffer
        return [queue.popleft() for _ in range(min(BATCH, len(queue)))]

    def _interrupt(self) -> None:
        cut, self._cut = self._cut, None
        if cut is not None:
            cut.reschedule(0)
