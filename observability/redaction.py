"""Secrets and personal data are masked before a record leaves the process: by key, and by pattern in text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

MASK = "[redacted]"
TEXT_LIMIT = 32_768
_DEPTH = 8
_ITEMS = 1_000

# Compared with the key in lower case without "-", "_", "." and spaces.
_PARTS = (
    "password", "passwd", "passphrase", "secret", "token", "authorization", "cookie", "apikey", "privatekey",
    "credential", "email", "iban", "cardnumber", "creditcard", "accountnumber", "phonenumber",
)  # fmt: skip
_WHOLE = frozenset(
    {"pwd", "pw", "pass", "card", "pan", "cvv", "cvc", "pin", "ssn", "phone", "mobile", "bic", "jwt"}
)
_SEPARATORS = str.maketrans("", "", "-_. ")
_CACHE_LIMIT = 4_096
_sensitive: dict[str, bool] = {}

# A user name or password in a URL. Both classes stop at the next slash: the search stays linear.
_URL = re.compile(r"://([^\s/:@]*):([^\s/]*)@")
_URL_USER = re.compile(r"://([^\s/:@]+)@")
_BEARER = re.compile(r"\b(bearer)\s+[a-z0-9._~+/=-]{6,}", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(password|passwd|pwd|secret|token|api[_-]?key|authorization|cookie)([\"']?\s{0,4}[=:]\s{0,4}[\"']?)"
    r"(?:basic\s+|bearer\s+)?(?!\[redacted\])[^\s\"',;&)}\]]+",
    re.IGNORECASE,
)
_JWT = re.compile(r"\beyJ[\w-]{6,}\.[\w-]{6,}\.[\w-]*")


def is_sensitive(key: str) -> bool:
    """Whether values under this key are masked: `password`, `X-Api-Key`, `userEmail`, `iban`."""
    known = _sensitive.get(key)
    if known is None:
        plain = key.lower().translate(_SEPARATORS)
        known = plain in _WHOLE or any(part in plain for part in _PARTS)
        if len(_sensitive) < _CACHE_LIMIT:
            _sensitive[key] = known
    return known


def redact_text(text: str) -> str:
    """The text without URL passwords, bearer tokens, JWTs and `password=...`, cut to 32 KB."""
    if len(text) > TEXT_LIMIT:
        text = text[:TEXT_LIMIT] + "..."
    if "://" in text and "@" in text:
        text = _URL.sub(rf"://\1:{MASK}@", text)
        text = _URL_USER.sub(f"://{MASK}@", text)
    if "eyJ" in text:
        text = _JWT.sub(MASK, text)
    if "=" in text or ":" in text:
        text = _ASSIGNED.sub(rf"\1\2{MASK}", text)
    if "earer" in text or "EARER" in text:
        text = _BEARER.sub(rf"\1 {MASK}", text)
    return text


def redact(value: Any, _depth: int = 0) -> Any:
    """A copy of a value that is fit to be written; the caller's own object is never changed.

    Containers are followed eight levels down and to 1,000 items; what lies beyond is given as text.
    """
    if value is None or isinstance(value, (bool, int, float)) or type(value).__module__ in _AS_THEY_ARE:
        return value
    if isinstance(value, (bytes, bytearray)):
        value = value[:TEXT_LIMIT].decode("utf-8", "backslashreplace")
    if isinstance(value, (Mapping, list, tuple, set, frozenset)) and _depth < _DEPTH:
        if not isinstance(value, Mapping):
            return [redact(item, _depth + 1) for item in islice(value, _ITEMS)]
        return {
            (name := key if isinstance(key, str) else str(key)): mask(item)
            if is_sensitive(name)
            else redact(item, _depth + 1)
            for key, item in islice(value.items(), _ITEMS)
        }
    return redact_text(value if isinstance(value, str) else _text(value))


def mask(value: Any) -> Any:
    """Nothing and yes/no reveal nothing; everything else under a sensitive key is masked."""
    return value if value is None or isinstance(value, bool) else MASK


_AS_THEY_ARE = frozenset({"datetime", "uuid"})


def _text(value: Any) -> str:
    try:
        return str(value)
    except Exception as error:  # noqa: BLE001 - a broken __str__ must not lose the log line
        return f"<{type(value).__name__}: str() raised {type(error).__name__}>"
