"""Who is asking: the address behind the proxies that are trusted, and whether the asker is one of ours."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from service.settings import Network

Address = IPv4Address | IPv6Address

PEER = "service.peer"
"""Where the scope keeps the address that the connection itself came from."""

_MOST_HOPS = 32
_V6_SUBSCRIBER = 64
_LONGEST = 45
_FOR = re.compile(r'(?:^|;)\s*for\s*=\s*"?([^";]*)"?', re.IGNORECASE)
_PORT = re.compile(r"\[([^\]]*)\](?::\d{1,5})?|([^:]*):\d{1,5}")
_FORWARDING = frozenset({b"forwarded", b"via", b"x-real-ip", b"true-client-ip", b"cf-connecting-ip"})


class ClientAddress:
    """Puts the client's address into `scope["client"]`, for telemetry, limits and endpoints alike.

    Only a peer in `trusted` is believed, and only in the one header that it writes: a proxy passes others on
    as the client sent them. The hops are read from the right, up to the first that is not a trusted proxy;
    what stands left of it anybody may have written. Where a hop is no address, the last good one counts.
    """

    def __init__(
        self, app: ASGIApp, *, trusted: Sequence[Network], header: Literal["x-forwarded-for", "forwarded"]
    ) -> None:
        self.app = app
        self._trusted = tuple(trusted)
        self._header = header.encode("ascii")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in {"http", "websocket"}:
            peer = scope.get("client")
            scope[PEER] = peer[0] if peer else ""
            if self._trusted and peer:
                client = self._client(peer[0], scope["headers"])
                if client != peer[0]:
                    scope["client"] = (client, 0)
        await self.app(scope, receive, send)

    def _client(self, peer: str, headers: Iterable[tuple[bytes, bytes]]) -> str:
        address = parse_address(peer)
        if address is None or not within(address, self._trusted):
            return peer
        lines = [value.decode("latin-1") for name, value in headers if name.lower() == self._header]
        found = peer
        for hop in reversed(",".join(lines).rsplit(",", _MOST_HOPS)[-_MOST_HOPS:] if lines else []):
            address = self._hop(hop)
            if address is None:
                break
            found = str(address)
            if not within(address, self._trusted):
                break
        return found

    def _hop(self, text: str) -> Address | None:
        if self._header == b"forwarded":
            named = _FOR.search(text)
            if named is None:
                return None
            text = named[1]
        text = text.strip()
        if port := _PORT.fullmatch(text):
            text = port[1] or port[2] or ""
        return parse_address(text)


def parse_address(text: str) -> Address | None:
    """An address without zone, an IPv4 one out of its IPv6 clothes; None for everything else."""
    return _parse(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)
def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether one of the networks has the address."""
    return any(address in network for network in networks)


def subscriber(text: str) -> str:
    """What to count an address as: itself, of IPv6 its /64, all of which one client can choose from."""
    address = parse_address(text)
    if address is None:
        return "unknown"
    if isinstance(address, IPv6Address):
        return str(IPv6Network((address, _V6_SUBSCRIBER), strict=False))
    return str(address)


def from_inside(scope: Scope, networks: Iterable[Network]) -> bool:
    """Whether the request came directly from one of the networks.

    What a proxy has passed on has not: it bears a header that says so, whether the proxy is trusted or not.
    """
    address = parse_address(scope.get(PEER, ""))
    if address is None or not within(address, networks):
        return False
    return not any(
        name.lower() in _FORWARDING or name.lower().startswith(b"x-forwarded-")
        for name, _ in scope["headers"]
    )
