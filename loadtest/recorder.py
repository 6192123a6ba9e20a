"""Inside the generator process: Locust's events become raw samples and marks."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gevent

from loadtest.samples import Mark, Phase, Sample, Writer

if TYPE_CHECKING:  # importing Locust patches the whole process, which is for its own process alone
    from locust.env import Environment
    from locust.event import Events

TICK_SECONDS = 0.2
_TRACERESPONSE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Recorder:
    """Listens to every request and writes it down; ends the run when standard input closes."""

    def __init__(self, folder: Path) -> None:
        self._writer = Writer(folder / f"samples-{os.getpid()}.bin")
        self._environment: Environment | None = None

    def attach(self, events: "Events") -> None:
        listeners: dict[str, Callable[..., None]] = {
            "init": self._on_init,
            "request": self._on_request,
            "user_error": self._on_user_error,
            "test_start": lambda **_: self._mark(Phase.STARTED),
            "spawning_complete": lambda **_: self._mark(Phase.RAMPED),
            "test_stopping": lambda **_: self._mark(Phase.STOPPING),
            "test_stop": lambda **_: self._mark(Phase.STOPPED),
        }
        for name, listener in listeners.items():
            hook: Any = getattr(events, name)
            hook.add_listener(listener)

    def _on_init(self, environment: "Environment", **_: Any) -> None:
        self._environment = environment
        gevent.spawn(self._tick)
        gevent.spawn(self._stop_when_abandoned)

    def _on_request(
        self,
        *,
        request_type: str,
        name: str,
        response_time: float,
        start_time: float | None = None,
        response: Any = None,
        exception: BaseException | None = None,
        context: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        elapsed = response_time / 1000
        start = time.time() - elapsed if start_time is None else start_time
        trace_id = trace_of(response) or (context or {}).get("trace_id", "")
        status = int(getattr(response, "status_code", 0) or 0)
        self._writer.sample(Sample(start, elapsed, request_type, name, status, said(exception), trace_id))

    def _on_user_error(self, user_instance: Any, exception: BaseException, **_: Any) -> None:
        where = type(getattr(user_instance, "user", user_instance)).__name__  # it may be the user's task set
        self._writer.sample(Sample(time.time(), 0.0, "EXCEPTION", where, 0, said(exception), ""))

    def _tick(self) -> None:
        while True:
            due = time.monotonic() + TICK_SECONDS
            gevent.sleep(TICK_SECONDS)
            self._mark(Phase.RUNNING, max(0.0, time.monotonic() - due))

    def _mark(self, phase: Phase, late: float = 0.0) -> None:
        runner = self._environment.runner if self._environment else None
        self._writer.mark(Mark(time.time(), phase, runner.user_count if runner else 0, late))
        self._writer.flush()

    def _stop_when_abandoned(self) -> None:
        """The parent holds the other end: it closes it to stop the run, and its own death closes it too."""
        while gevent.os.tp_read(0, 1024):
            pass
        if self._environment and self._environment.runner:
            self._environment.stop_timeout = 0
            self._environment.runner.quit()


def trace_of(response: Any) -> str:
    """The trace ID that the response's `traceresponse` names, or an empty string."""
    headers = getattr(response, "headers", None) or {}
    found = _TRACERESPONSE.fullmatch(str(headers.get("traceresponse") or ""))
    return found[1] if found else ""


def said(exception: BaseException | None) -> str:
    """The fault in one line, without addresses that would make every text another one."""
    if exception is None:
        return ""
    text = " ".join(str(exception).split()) or type(exception).__name__
    return re.sub(r"https?://\S+|0x[0-9a-f]{6,}", "…", text)
