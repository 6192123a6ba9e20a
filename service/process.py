"""How a process starts and ends: settings, event loop, signals, exit codes."""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import uvloop

from observability import get_logger
from service.errors import StartError
from service.settings import Settings, SettingsError, load_settings

log = get_logger(__name__)

EX_CONFIG = 78
EX_INTERRUPTED = 130
EX_OVERDUE = 75
_CLOSING_SECONDS = 10.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)

Main = Callable[[Settings, asyncio.Event], Awaitable[None]]
"""Runs until the event is set, then drains and returns."""


def run(main: Main) -> int:
    """Run a process to its end; gives the exit code: 0 drained, 1 could not start, 78 wrong settings.

    A drain that takes far longer than it may ends the process with 75, a second signal with 130.
    """
    try:
        settings = load_settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return EX_CONFIG
    try:
        uvloop.run(_run(main, settings), debug=settings.app.debug)
    except StartError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _run(main: Main, settings: Settings) -> None:
    stopping = asyncio.Event()

    def stop(number: signal.Signals) -> None:
        if stopping.is_set():
            # Whoever asks twice does not want to wait for the drain.
            os._exit(EX_INTERRUPTED)
        log.info("process.stopping", signal=number.name)
        stopping.set()
        loop.call_later(limit, overdue)

    def overdue() -> None:
        log.critical("process.drain_overdue", seconds=limit)
        os._exit(EX_OVERDUE)

    loop = asyncio.get_running_loop()
    # The port and the jobs each have their time to drain, telemetry and pools what is left.
    limit = settings.app.drain_notice_seconds + 2 * settings.app.drain_seconds + _CLOSING_SECONDS
    for number in SIGNALS:
        loop.add_signal_handler(number, stop, number)
    await main(settings, stopping)
