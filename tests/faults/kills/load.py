"""The client: so many new transactions a second whatever the answers, and a ledger of them."""

import asyncio
import time
import uuid
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Self

import httpx

from service.tasks import end


class Load:
    """While the block runs. `accepted` is the ledger: the transaction of every 201 by its reference.

    Each request has a reference of its own. What broke off, or was answered with 503, is `unknown`: there may
    be a transaction or not, and if there is one its job is to be there too. A request that found no one
    listening goes to the other API at once, as through an edge.
    """

    def __init__(self, urls: list[str], rate: float) -> None:
        self._urls, self._rate = urls, rate
        self.accepted: dict[str, str] = {}
        self.unknown: set[str] = set()
        self.unsent = 0
        self.statuses: Counter[int] = Counter()
        self.seconds = 0.0
        self._open: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._http = httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_connections=None))
        self._started = time.monotonic()
        self._sending = asyncio.create_task(self._send(), name="load")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(self._sending)
        self.seconds = time.monotonic() - self._started
        if self._open:
            await asyncio.wait(self._open)
        await self._http.aclose()

    async def under_way(self, accepted: float) -> None:
        """Returns once so many were accepted."""
        while len(self.accepted) < accepted:  # noqa: ASYNC110 - nothing hangs on the moment
            await asyncio.sleep(0.1)

    @property
    def sent(self) -> int:
        return len(self.accepted) + len(self.unknown) + self.unsent

    async def _send(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(max(0.0, self._started + number / self._rate - time.monotonic()))
            task = asyncio.create_task(self._post(number), name=f"request-{number}")
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            number += 1

    async def _post(self, number: int) -> None:
        reference = str(uuid.uuid4())
        body = {"amount": "12.50", "currency": "EUR", "reference": reference}
        for turn in range(len(self._urls)):
            url = self._urls[(number + turn) % len(self._urls)]
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                try:
                    answer = await self._http.post(f"{url}/v1/transactions", json=body)
                except (httpx.ConnectError, httpx.ConnectTimeout):
                    raise
                except httpx.HTTPError:
                    self.unknown.add(reference)
                    return
                self.statuses[answer.status_code] += 1
                if answer.status_code == 201:
                    self.accepted[reference] = answer.json()["data"]["id"]
                else:
                    self.unknown.add(reference)
                return
        self.unsent += 1
