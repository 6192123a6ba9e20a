"""Keys and tags: text of any kind goes in, short plain names come out, different for different texts."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from string import Formatter
from urllib.parse import quote
from uuid import UUID

from service.infra.cache.errors import CacheKeyError

MAX_NAME = 200
_PLAIN = re.compile(rf"[A-Za-z0-9_.:@/%+-]{{1,{MAX_NAME}}}")
_STABLE = (str, int, float, Decimal, UUID, date, datetime, Enum, type(None))


def plain(text: str) -> str:
    """The text itself if it is short and plain, else its SHA-256. `~` is in no plain name, so none collide.

    Raises:
        CacheKeyError: empty, or not text.
    """
    if not isinstance(text, str) or not text:
        raise CacheKeyError(f"a key or tag is text of at least one character, not {type(text).__name__}")
    if _PLAIN.fullmatch(text):
        return text
    return "sha256~" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def domain_tag(domain: str) -> str:
    """The tag that every entry of a domain has. No tag of a caller can be it, for its `~`."""
    return f"~{domain}"


@dataclass(frozen=True, slots=True)
class Names:
    """What a change concerns: keys as (domain, plain key), and plain tags."""

    keys: tuple[tuple[str, str], ...] = ()
    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, domain: str, keys: Iterable[str] = (), tags: Iterable[str] = ()) -> "Names":
        return cls(
            tuple((domain, key) for key in dict.fromkeys(map(plain, keys))),
            tuple(dict.fromkeys(map(plain, tags))),
        )


def render(template: str, values: Mapping[str, object]) -> str:
    """`"{user}:{page}"` with its fields filled in; separators inside of a value are escaped.

    So `("a:b", "c")` and `("a", "b:c")` give two keys. `{user.id}` reads an attribute.

    Raises:
        CacheKeyError: a field is missing, or of a type whose text does not stand for its value.
    """
    parts = []
    for literal, field, form, conversion in Formatter().parse(template):
        parts.append(literal)
        if field is None:
            continue
        if form or conversion:
            raise CacheKeyError(f"{template!r}: fields have no format")
        parts.append(_escaped(template, field, values))
    return "".join(parts)


def _escaped(template: str, field: str, values: Mapping[str, object]) -> str:
    name, *attributes = field.split(".")
    if name not in values:
        raise CacheKeyError(f"{template!r}: there is no argument {name!r}")
    value = values[name]
    for attribute in attributes:
        if not hasattr(value, attribute):
            raise CacheKeyError(f"{template!r}: {type(value).__name__} has no {attribute!r}")
        value = getattr(value, attribute)
    if not isinstance(value, _STABLE):
        raise CacheKeyError(f"{template!r}: {type(value).__name__} in {field!r} has no stable text")
    text = str(value.value if isinstance(value, Enum) else value)
    return quote(text.encode("utf-8", "surrogatepass"), safe="")
