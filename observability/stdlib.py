"""The standard library's `logging`, `warnings` and exception hooks, led into the log pipeline."""

from __future__ import annotations

import logging
import sys
import threading
import time
from types import TracebackType
from typing import Any

from observability import logs

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
# The exporter's complaints repeat with each batch while the collector is away: one a minute is enough.
_NOISY = ("opentelemetry", "grpc", "observability.tracing")
_NOISE_SECONDS = 60.0
_NOISE_KINDS = 1_000


class PipelineHandler(logging.Handler):
    """Hands each record to the pipeline in use: `extra` fields and exception included."""

    def __init__(self) -> None:
        super().__init__()
        self._quiet_until: dict[tuple[str, int], float] = {}
        self._suppressed: dict[tuple[str, int], int] = {}

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {
            key: value
            for key, value in vars(record).items()
            if key not in _STANDARD and not key.startswith("_")
        }
        if record.name.startswith(_NOISY):
            repeats = self._repeats(record)
            if repeats is None:
                return
            if repeats:
                fields["suppressed"] = repeats
        if record.exc_info:
            fields["exc_info"] = record.exc_info
        try:
            event = record.getMessage()
        except (TypeError, ValueError, KeyError):
            event, fields["logArguments"] = str(record.msg), repr(record.args)
        logs.pipeline().emit(record.levelno, record.name, event, fields)

    def _repeats(self, record: logging.LogRecord) -> int | None:
        """How many of the kind were held back since the last one written; None holds this one back too."""
        kind, now = (record.name, record.lineno), time.monotonic()
        if now < self._quiet_until.get(kind, 0.0):
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            return None
        if len(self._quiet_until) >= _NOISE_KINDS:
            self._quiet_until.clear()
            self._suppressed.clear()
        self._quiet_until[kind] = now + _NOISE_SECONDS
        return self._suppressed.pop(kind, 0)


class Capture:
    """Leads logging, warnings and uncaught exceptions into the pipeline, and puts things back on `close`."""

    def __init__(self, level: int) -> None:
        self._handler = PipelineHandler()
        self._root_level = logging.root.level
        self._excepthook, self._thread_hook = sys.excepthook, threading.excepthook
        logging.root.addHandler(self._handler)
        logging.root.setLevel(level)
        logging.captureWarnings(capture=True)
        sys.excepthook = self._uncaught
        threading.excepthook = self._uncaught_in_thread
        self.adopt()

    def adopt(self) -> None:
        """Take the console handlers from every logger there is, and let their records rise to the root.

        Servers and workers that set up their own (granian, uvicorn, arq) do so when they start: call it
        after that.
        """
        loggers = [logging.root, *(logging.getLogger(name) for name in list(logging.root.manager.loggerDict))]
        for logger in loggers:
            for handler in list(logger.handlers):
                if type(handler) is logging.StreamHandler and handler.stream in _console():
                    logger.removeHandler(handler)
                    logger.propagate = True

    def set_level(self, level: int) -> None:
        logging.root.setLevel(level)

    def close(self) -> None:
        logging.root.removeHandler(self._handler)
        logging.root.setLevel(self._root_level)
        logging.captureWarnings(capture=False)
        if sys.excepthook == self._uncaught:
            sys.excepthook = self._excepthook
        if threading.excepthook == self._uncaught_in_thread:
            threading.excepthook = self._thread_hook

    def _uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            self._excepthook(kind, error, trace)
            return
        logs.pipeline().emit(50, "observability.stdlib", "process.uncaught_exception", {"exc_info": error})

    def _uncaught_in_thread(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            fields = {"exc_info": args.exc_value, "thread": args.thread.name if args.thread else ""}
            logs.pipeline().emit(50, "observability.stdlib", "thread.uncaught_exception", fields)


def _console() -> tuple[object, ...]:
    return (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
