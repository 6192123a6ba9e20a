"""Values: bytes and text as they are, everything else as JSON."""

from decimal import Decimal
from typing import Any

import orjson

from service.infra.redis.faults import RedisDecodeFault, RedisEncodeFault, RedisValueTooLargeFault


class Values:
    """Encodes values up to a size in bytes."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes

    def encode(self, value: object) -> bytes:
        """`bytes` and `str` raw, everything else as JSON (dataclass, datetime, UUID, Decimal as text).

        A `str` is stored without quotes: read it with `get_text`; only what was stored as JSON reads as JSON.

        Raises:
            RedisEncodeFault: JSON cannot hold it, or a string has lone surrogates.
            RedisValueTooLargeFault: over the limit once encoded.
        """
        if isinstance(value, (bytes, bytearray, memoryview)):
            raw = bytes(value)
        else:
            try:
                raw = value.encode() if isinstance(value, str) else to_json(value)
            except UnicodeEncodeError as error:
                raise RedisEncodeFault(f"text: {error.reason}") from error
        if len(raw) > self.max_bytes:
            raise RedisValueTooLargeFault(f"value has {len(raw)} bytes, at most {self.max_bytes}")
        return raw


def to_json(value: object) -> bytes:
    """JSON, also of a string. Raises RedisEncodeFault."""
    try:
        return orjson.dumps(value, default=_default, option=orjson.OPT_NON_STR_KEYS)
    except TypeError as error:
        raise RedisEncodeFault(f"{type(value).__name__}: {error}") from error


def from_json(raw: bytes) -> Any:
    """Raises RedisDecodeFault; its reason never repeats the value."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise RedisDecodeFault(f"not JSON: {error.msg}, character {error.pos}") from None


def from_text(raw: bytes) -> str:
    """Raises RedisDecodeFault."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise RedisDecodeFault(f"not UTF-8 at byte {error.start}") from None


def _default(value: object) -> object:
    if isinstance(value, Decimal):
        return str(value)
    if isinstance(value, (set, frozenset)):
        return list(value)
    raise TypeError("type is not JSON serializable")
