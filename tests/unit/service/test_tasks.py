"""Tasks that ignore their first cancellation end all the same."""

import asyncio

from service.tasks import end, first_of


async def test_a_lost_cancellation_is_sent_again() -> None:
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost > 2:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await end(task, None)
    assert task.cancelled()
    assert lost == 3


async def test_the_first_to_end_is_waited_for_and_the_others_go_on() -> None:
    async def fail() -> None:
        raise ValueError

    failing, going = asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(60))
    await first_of(failing, going)
    assert isinstance(failing.exception(), ValueError)
    assert not going.done()
    await end(failing, going)
    assert going.cancelled()
