"""Background tasks: waiting for them, and ending them for certain."""

import asyncio
from typing import Any

_PATIENCE = 0.5


async def first_of(*tasks: asyncio.Task[Any]) -> None:
    """Wait until one of them has ended, well or not. The others go on."""
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks until they have ended; what they raise on the way is not raised here.

    Once is not enough: redis-py (5.3, Python 3.11) loses about one cancellation in twenty that meets a
    command, and a loop around such commands would go on for ever.
    """
    waiting = {task for task in tasks if task is not None and not task.done()}
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=_PATIENCE)
