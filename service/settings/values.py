"""Values that a variable writes in a form of its own: rates, networks and origins."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_settings import NoDecode

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
_RATE = re.compile(rf"([0-9]{{1,9}}) ?/ ?(?:([0-9]{{1,7}}) ?)?({'|'.join(_UNITS)})s?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_LONGEST = 31 * 86_400

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `limit` in any `seconds`."""

    limit: int
    seconds: int

    def __post_init__(self) -> None:
        if self.limit < 1 or not 1 <= self.seconds <= _LONGEST:
            raise ValueError("must be at least 1, per 1 second to 31 days")

    @classmethod
    def parse(cls, text: str) -> "Rate":
        """`100/hour`, `5/10 seconds`. Raises ValueError."""
        found = _RATE.fullmatch(text.strip().lower())
        if found is None:
            raise ValueError(
                "must be a number per second, minute, hour or day, such as 100/hour or 5/10 seconds"
            )
        limit, count, unit = found.groups()
        return cls(int(limit), int(count or 1) * _UNITS[unit])

    def __str__(self) -> str:
        for unit, seconds in reversed(_UNITS.items()):
            if self.seconds % seconds == 0:
                count = self.seconds // seconds
                return f"{self.limit}/{unit}" if count == 1 else f"{self.limit}/{count} {unit}s"
        raise AssertionError("every whole number is a multiple of one second")


def _parse_rate(value: object) -> object:
    return Rate.parse(value) if isinstance(value, str) else value


def parse_networks(text: str) -> tuple[Network, ...]:
    """`10.0.0.0/8,::1`. Raises ValueError."""
    found: list[Network] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ip_network(part))
        except ValueError:
            raise ValueError(f"{part[:50]} is not an address or a network without host bits") from None
    return tuple(found)


def _parse_networks(value: object) -> object:
    return parse_networks(value) if isinstance(value, str) else value


def _parse_origins(value: object) -> object:
    if not isinstance(value, str):
        return value
    found = tuple(filter(None, (part.strip().rstrip("/").lower() for part in value.split(","))))
    for origin in found:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{origin[:80]} is not an origin (scheme://host or scheme://host:port)")
    if "*" in found and len(found) > 1:
        raise ValueError("must be * alone or a list of origins")
    return found


RateValue = Annotated[Rate, NoDecode, BeforeValidator(_parse_rate)]
"""A field written as `100/hour`."""

Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_parse_networks)]
"""A field written as networks with commas between them."""

Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_parse_origins)]
"""A field written as `scheme://host:port` with commas between them, or `*`."""
