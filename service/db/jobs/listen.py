"""Hearing what other transactions NOTIFY, on a connection of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from observability import get_logger
from service.db.session import Database
from service.errors import UnavailableError
from service.tasks import end

log = get_logger(__name__)

_PAUSE = (0.2, 5.0)
_PING_SECONDS = 15.0


class Listener:
    """`heard` is set by every notification, and by every new connection, as some may have been missed."""

    def __init__(self, database: Database, channel: str) -> None:
        self._database = database
        self._channel = channel
        self.heard = asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listens inside the block, connecting again when the connection is lost."""
        task = asyncio.create_task(self._run(), name=f"listen:{self._channel}")
        try:
            yield
        finally:
            await end(task)

    async def _run(self) -> None:
        pause = _PAUSE[0]
        while True:
            try:
                async with self._database.connection() as connection:
                    raw: Any = (await connection.get_raw_connection()).driver_connection
                    await raw.add_listener(self._channel, self._hear)
                    self.heard.set()
                    pause = _PAUSE[0]
                    await self._stay(raw)
            except UnavailableError as error:
                log.debug("listen.unavailable", channel=self._channel, reason=error.message, retryIn=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE[1])

    @staticmethod
    async def _stay(raw: Any) -> None:
        """Until the connection is lost. A dead peer says nothing, so that it is asked now and then."""
        lost = asyncio.Event()
        raw.add_termination_listener(lambda _: lost.set())
        while not lost.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), _PING_SECONDS)
                return
            await raw.execute("SELECT 1")

    def _hear(self, *_: object) -> None:
        self.heard.set()
