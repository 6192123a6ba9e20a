"""Is an answer what the contract says? Success is `{statusCode, message, data, meta}`."""

import json
from typing import Any


def read_frame(status: int, body: bytes | None, expected: int) -> tuple[dict[str, Any], str]:
    """The frame and an empty string, or an empty frame and what is wrong with the answer."""
    try:
        frame = json.loads(body or b"")
    except ValueError:
        frame = None
    if status != expected:
        error = frame.get("error") if isinstance(frame, dict) else None
        code = error.get("code") if isinstance(error, dict) else None
        return {}, f"answered {status}{f' {code}' if code else ''}, expected {expected}"
    if not isinstance(frame, dict):
        return {}, f"answered {status} with a body that is not a JSON object"
    if frame.get("statusCode") != expected:
        return {}, f"statusCode in the body is {frame.get('statusCode')!r}, in the head {status}"
    missing = [key for key in ("message", "data", "meta") if key not in frame]
    if missing:
        return {}, f"the frame has no {', '.join(missing)}"
    return frame, ""
