"""Loads of this process that others may share."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Landed(Generic[T]):
    """What a load gave. `current`: it was still so after the load, so that whoever joined may have it too."""

    value: T | None
    current: bool


class Flights:
    """Running loads. Each is a task of its own: it goes on when the request that started it is cancelled."""

    def __init__(self) -> None:
        self._by_token: dict[str, asyncio.Task[Landed[Any]]] = {}
        self._running: dict[str, asyncio.Task[Any]] = {}
        self._next: dict[str, asyncio.Task[Any]] = {}
        self._others: set[asyncio.Task[Any]] = set()

    def start(self, token: str, load: Coroutine[Any, Any, Landed[T]]) -> asyncio.Task[Landed[T]]:
        """Run a load that has the lease `token`."""
        task = asyncio.create_task(load, name="cache-load")
        self._by_token[token] = task
        task.add_done_callback(lambda _: self._by_token.pop(token, None))
        return task

    def join(self, token: str) -> asyncio.Task[Landed[Any]] | None:
        """The load with this lease, if it runs in this process."""
        return self._by_token.get(token)

    async def fresh(self, key: str, load: Callable[[], Awaitable[T]]) -> T:
        """Share a load that starts from now on.

        Needs no Redis and gives nobody a value that is older than the question: whoever comes while a load
        runs waits for the next one. However many ask, the source sees one at a time per key.
        """
        task = self._next.get(key)
        if task is None:
            task = self._next[key] = asyncio.create_task(self._after_running(key, load), name="cache-load")
            task.add_done_callback(_seen)
        result: T = await asyncio.shield(task)
        return result

    async def _after_running(self, key: str, load: Callable[[], Awaitable[T]]) -> T:
        while (running := self._running.get(key)) is not None:
            await asyncio.wait({running})
        self._running[key] = self._next.pop(key)
        try:
            return await load()
        finally:
            del self._running[key]

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Hold on to a task that nobody waits for."""
        self._others.add(task)
        task.add_done_callback(self._others.discard)

    async def close(self, grace: float) -> None:
        """Give what runs `grace` seconds, then cancel it."""
        tasks = {*self._by_token.values(), *self._running.values(), *self._next.values(), *self._others}
        if not tasks:
            return
        _, late = await asyncio.wait(tasks, timeout=grace)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=1)


def _seen(task: asyncio.Task[Any]) -> None:
    """An error whose askers have all gone is no error of the event loop."""
    if not task.cancelled():
        task.exception()
