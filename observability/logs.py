"""Log lines: structlog's interface in front, one JSON object per line behind, one way out for everybody.

What comes through `get_logger`, the standard library's `logging`, `warnings` and the interpreter's hooks for
uncaught exceptions ends in the same `LogPipeline`. The pipeline in use is a property of the process, as
`logging.root` is: until `Telemetry.start` gives it a name and a sink, lines go to standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from observability.context import LOG_KEYS, current_context
from observability.exceptions import structured
from observability.redaction import is_sensitive, mask, redact, redact_text
from observability.sinks import FileDescriptorSink, Sink

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_NAMES = {number: name for name, number in LEVELS.items()}
_ENCODING = orjson.OPT_NON_STR_KEYS | orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
_RESERVED = frozenset(
    {"timestamp", "level", "event", "logger", "service", "env", "instance", "traceId", "spanId"}
)


class LogPipeline:
    """What one process does with a log event: level, the fields of every line, redaction, encoding, sink."""

    def __init__(
        self,
        sink: Sink,
        static: dict[str, str] | None = None,
        level: str = "info",
        *,
        renderer: Processor | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self.sink = sink
        self.static = static or {}
        self.level = level_number(level)
        self._renderer = renderer
        self._on_lost = on_lost
        self.closed = False
        self._second = -1
        self._second_text = ""

    def timestamp(self, now_ns: int) -> str:
        """RFC 3339 in UTC with microseconds; the part down to the second is formatted once a second."""
        second, nanoseconds = divmod(now_ns, 1_000_000_000)
        text = self._second_text
        if second != self._second:
            text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
            # Two threads may race here: the text is set last, and each uses its own.
            self._second, self._second_text = second, text
        return f"{text}{nanoseconds // 1000:06d}Z"

    def emit(self, level: int, logger: str, event: object, fields: MutableMapping[str, Any]) -> None:
        """Write one event. Fields may hold `exc_info` (True, an exception or a triple); never raises."""
        try:
            line = self._line(level, logger, event, fields)
        except Exception as error:  # noqa: BLE001 - a log call must not fail its caller; the loss is in the line
            line = self._minimal(level, logger, event, error)
        self.sink.write(line)

    def write(self, record: dict[str, Any]) -> None:
        """Write a record that is complete and redacted already: the short way of the access line."""
        try:
            line = self.encode(record)
        except Exception as error:  # noqa: BLE001 - as in emit
            line = self._minimal(20, record.get("logger", ""), record.get("event", ""), error)
        self.sink.write(line)

    def close(self) -> None:
        """Close the sink. Lines written later are the sink's to take or to lose."""
        self.closed = True
        self.sink.close()

    def _line(self, level: int, logger: str, event: object, fields: MutableMapping[str, Any]) -> bytes:
        error = _exception(fields.pop("exc_info", None))
        fields.pop("stack_info", None)
        record: dict[str, Any] = {
            "timestamp": self.timestamp(time.time_ns()),
            "level": level_name(level),
            "event": redact_text(event if isinstance(event, str) else str(event)),
            "logger": logger,
            **self.static,
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            record["traceId"] = format(span.trace_id, "032x")
            record["spanId"] = format(span.span_id, "016x")
        context = current_context.get()
        if context is not None:
            context.resolved()
            for attribute, key in LOG_KEYS:
                if value := getattr(context, attribute):
                    record[key] = redact_text(value)
        for key, value in fields.items():
            name = f"{key}_" if key in _RESERVED else key
            record[name] = mask(value) if is_sensitive(name) else redact(value)
        if error is not None:
            record["exception"] = structured(error)
        return self.encode(record)

    def encode(self, record: dict[str, Any]) -> bytes:
        """The line of a complete, already redacted record."""
        if self._renderer is not None:
            return (str(self._renderer(None, record["level"], _for_console(record))) + "\n").encode(
                "utf-8", "backslashreplace"
            )
        try:
            return orjson.dumps(record, default=str, option=_ENCODING)
        except (orjson.JSONEncodeError, RecursionError):
            return orjson.dumps(_encodable(record), default=str, option=_ENCODING)

    def _minimal(self, level: int, logger: str, event: object, error: Exception) -> bytes:
        if self._on_lost is not None:
            self._on_lost()
        record = {
            "timestamp": self.timestamp(time.time_ns()),
            "level": level_name(level),
            "event": redact_text(repr(event)[:1_000]),
            "logger": logger,
            **self.static,
            "logFault": f"{type(error).__name__}: the event's fields could not be encoded",
        }
        return orjson.dumps(_encodable(record), option=_ENCODING)


class Logger(structlog.BoundLoggerBase):
    """A structlog bound logger over the process's pipeline: `log.info("order.created", id=...)`.

    Below the level in force a call costs one comparison. `bind`, `unbind` and `new` are structlog's.
    """

    def debug(self, event: str, *args: Any, **fields: Any) -> None:
        self._emit(10, event, args, fields)

    def info(self, event: str, *args: Any, **fields: Any) -> None:
        self._emit(20, event, args, fields)

    def warning(self, event: str, *args: Any, **fields: Any) -> None:
        self._emit(30, event, args, fields)

    def error(self, event: str, *args: Any, **fields: Any) -> None:
        self._emit(40, event, args, fields)

    def critical(self, event: str, *args: Any, **fields: Any) -> None:
        self._emit(50, event, args, fields)

    def exception(self, event: str, *args: Any, **fields: Any) -> None:
        """An error with the exception being handled."""
        fields.setdefault("exc_info", True)
        self._emit(40, event, args, fields)

    def log(self, level: int, event: str, *args: Any, **fields: Any) -> None:
        self._emit(level, event, args, fields)

    def is_enabled_for(self, level: int) -> bool:
        return level >= pipeline().level

    warn = warning
    fatal = critical

    def _emit(self, level: int, event: str, args: tuple[Any, ...], fields: dict[str, Any]) -> None:
        out = pipeline()
        if level < out.level:
            return
        merged: EventDict = {**self._context, **fields}
        name = merged.pop("logger", "")
        for processor in self._processors:
            processed = processor(self._logger, level_name(level), merged)
            if not isinstance(processed, dict):
                raise TypeError("a log processor returns the event's fields; the pipeline does the rendering")
            merged = processed
        if args:
            try:
                event %= args
            except (TypeError, ValueError, KeyError):
                merged["logArguments"] = repr(args)
        out.emit(level, str(name), event, merged)


def get_logger(name: str = "", **fields: Any) -> Logger:
    """A logger for a module: `log = get_logger(__name__)`. Usable at import, before telemetry has started."""
    return Logger(None, [], {"logger": name, **fields})


def level_number(name: str) -> int:
    """`debug` -> 10 and so on; ValueError names the levels there are."""
    try:
        return LEVELS[name.lower()]
    except KeyError:
        raise ValueError(f"no log level {name!r}: one of {', '.join(LEVELS)}") from None


def level_name(number: int) -> str:
    """The name of a level; one between two names takes the lower."""
    return _NAMES.get(number) or _NAMES[max(10, min(50, number // 10 * 10))]


def unmanaged() -> LogPipeline:
    """Lines of a process that has not started telemetry: JSON on standard error."""
    return LogPipeline(FileDescriptorSink(2, name="standard error"))


def pipeline() -> LogPipeline:
    """The pipeline in use."""
    return _in_use[0]


def use(new: LogPipeline) -> LogPipeline:
    """Send everything logged from here on through `new`; gives the one that was in use.

    Code that asks structlog itself for a logger gets the same one.
    """
    old, _in_use[0] = _in_use[0], new
    structlog.configure(
        processors=[],
        wrapper_class=Logger,
        logger_factory=_nothing,
        context_class=dict,
        cache_logger_on_first_use=False,
    )
    return old


# A one-element list and no rebinding: loggers made at import see the change.
_in_use: list[LogPipeline] = [unmanaged()]


def _nothing(*_args: object) -> WrappedLogger:
    return None


def _exception(exc_info: object) -> BaseException | None:
    if exc_info is True:
        return sys.exc_info()[1]
    if isinstance(exc_info, tuple) and len(exc_info) == 3:
        exc_info = exc_info[1]
    return exc_info if isinstance(exc_info, BaseException) else None


def _encodable(value: Any) -> Any:
    """What orjson refuses, made text: lone surrogates, integers over 64 bits, strange keys."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_encodable(str(key)): _encodable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_encodable(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 63:
        return str(value)
    return value


def _for_console(record: dict[str, Any]) -> dict[str, Any]:
    """Short for people: the process's own fields out, the last exception in one block."""
    shown = {
        key: value for key, value in record.items() if key not in {"service", "env", "instance", "spanId"}
    }
    shown["timestamp"] = shown["timestamp"][11:23]
    if chain := shown.pop("exception", None):
        lines = []
        for entry in reversed(chain):
            lines += [f"  {f['file']}:{f['line']} {f['function']}" for f in entry["frames"]]
            lines.append(f"{entry['type']}: {entry['value']}")
        shown["exception"] = "\n".join(lines)
    return shown
