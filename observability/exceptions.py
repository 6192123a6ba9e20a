"""Exceptions as data: type, text and frames, without source lines and without local variables."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any

import orjson

from observability.redaction import redact_text

LIMIT_BYTES = 32_768
_VALUE_LIMIT = 4_096
_FRAMES = 60
_CHAIN = 10
_GROUP = 10
_GROUP_DEPTH = 3


def structured(error: BaseException, limit: int = LIMIT_BYTES) -> list[dict[str, Any]]:
    """The exception, then what caused it, as `[{type, value, frames: [{file, line, function}]}]`.

    Frames run from the outermost call to the place of the raise. The members of an exception group are under
    `exceptions`. The result encodes to at most `limit` bytes of JSON: text and the middle frames are cut
    first, then the far end of the chain.
    """
    chain = _chain(error, 0)
    frames, value = _FRAMES, _VALUE_LIMIT
    while len(orjson.dumps(chain)) > limit:
        if frames > 4:
            frames, value = frames // 2, value // 2
            chain = [_shortened(entry, frames, value) for entry in chain]
        elif len(chain) > 1:
            chain = chain[: len(chain) // 2]
        elif "exceptions" in chain[0]:
            del chain[0]["exceptions"]
        else:
            return [{"type": chain[0]["type"][:200], "value": "(cut)", "frames": []}]
    return chain


def type_name(error: BaseException) -> str:
    """`ValueError` for a builtin, `package.module.Name` for everything else."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def message(error: BaseException) -> str:
    """The exception's text without credentials, at most 4,096 characters."""
    try:
        text = str(error)
    except Exception as fault:  # noqa: BLE001 - a broken __str__ must not hide the exception
        text = f"<str() raised {type(fault).__name__}>"
    return _encodable(redact_text(text)[:_VALUE_LIMIT])


def stacktrace(error: BaseException) -> str:
    """The usual traceback text, redacted, cut from the front to 32 KB: for a span's exception event."""
    text = "".join(traceback.format_exception(error))
    return _encodable(redact_text(text[-LIMIT_BYTES:]))


def span_attributes(error: BaseException) -> dict[str, str]:
    """The attributes of a span's `exception` event, without credentials."""
    return {
        "exception.type": type_name(error),
        "exception.message": message(error),
        "exception.stacktrace": stacktrace(error),
    }


def _chain(error: BaseException, depth: int) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen and len(entries) < _CHAIN:
        seen.add(id(current))
        entry: dict[str, Any] = {
            "type": type_name(current),
            "value": message(current),
            "frames": _frames(current.__traceback__),
        }
        if isinstance(current, BaseExceptionGroup) and depth < _GROUP_DEPTH:
            entry["exceptions"] = [_chain(member, depth + 1) for member in current.exceptions[:_GROUP]]
        entries.append(entry)
        if current.__cause__ is not None or current.__suppress_context__:
            current = current.__cause__
        else:
            current = current.__context__
    return entries


def _frames(trace: TracebackType | None) -> list[dict[str, Any]]:
    frames = [
        {
            "file": _encodable(frame.f_code.co_filename),
            "line": line,
            "function": _encodable(frame.f_code.co_qualname),
        }
        for frame, line in traceback.walk_tb(trace)
    ]
    return _middle_cut(frames, _FRAMES)


def _middle_cut(frames: list[dict[str, Any]], keep: int) -> list[dict[str, Any]]:
    if len(frames) <= keep:
        return frames
    head = keep // 4
    return [
        *frames[:head],
        {"file": "...", "line": 0, "function": f"({len(frames) - keep} frames left out)"},
        *frames[len(frames) - (keep - head) :],
    ]


def _shortened(entry: dict[str, Any], frames: int, value: int) -> dict[str, Any]:
    short = {**entry, "value": entry["value"][:value], "frames": _middle_cut(entry["frames"], frames)}
    if "exceptions" in entry:
        short["exceptions"] = [[_shortened(e, frames, value) for e in chain] for chain in entry["exceptions"]]
    return short


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
