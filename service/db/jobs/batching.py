"""Many small questions at a time as one statement."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_MOST = 500


class Batched(Generic[K, V]):
    """Asks for one by one, answers many at once: who comes while a batch is under way shares the next.

    So a lone question waits for nobody, and under load a batch is as large as what came during the last one.
    """

    def __init__(self, answer: Callable[[Sequence[K]], Awaitable[Sequence[V]]]) -> None:
        """`answer` gives an answer for each question, in their order; what it raises, all of them get."""
        self._answer = answer
        self._waiting: list[tuple[K, asyncio.Future[V]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, question: K) -> V:
        answer: asyncio.Future[V] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="batch")
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
                # Whoever left, by a timeout, asks no more.
                batch = [(question, answer) for question, answer in batch if not answer.done()]
                try:
                    found = await self._answer([question for question, _ in batch])
                except Exception as error:  # noqa: BLE001 - it belongs to those who asked
                    for _, answer in batch:
                        if not answer.done():
                            answer.set_exception(error)
                else:
                    for (_, answer), value in zip(batch, found, strict=True):
                        if not answer.done():
                            answer.set_result(value)
        finally:
            self._task = None
