"""Whose address counts: through trusted proxies, against forged headers, in every spelling."""

from ipaddress import ip_address
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.client_address import ClientAddress, from_inside, parse_address, subscriber
from service.settings.values import parse_networks

Header = Literal["x-forwarded-for", "forwarded"]
TRUSTED = parse_networks("10.0.0.0/24,fd00:1::/64,127.0.0.1")
EDGE = "10.0.0.7"


async def seen(
    *lines: str, peer: str = EDGE, header: Header = "x-forwarded-for", name: str = "", trusted: Any = TRUSTED
) -> str:
    """The client that the application sees."""
    scopes: list[Any] = []

    async def app(scope: Any, _receive: Any, _send: Any) -> None:
        scopes.append(scope)

    raw = [((name or header).encode(), line.encode("latin-1")) for line in lines]
    scope = {"type": "http", "client": (peer, 4711), "headers": raw}
    await ClientAddress(app, trusted=trusted, header=header)(scope, None, None)  # type: ignore[arg-type]
    client: str = scopes[0]["client"][0]
    return client


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["203.0.113.9"], "203.0.113.9"),
        (["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        (["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        (["1.1.1.1, 203.0.113.9, 10.0.0.3"], "203.0.113.9"),
        (["203.0.113.9, 127.0.0.1,10.0.0.3"], "203.0.113.9"),
        (["10.0.0.9"], "10.0.0.9"),
        (["203.0.113.9:5555"], "203.0.113.9"),
        (["[2001:db8::1]:443"], "2001:db8::1"),
        (["2001:DB8:0::1"], "2001:db8::1"),
        (["::ffff:203.0.113.9"], "203.0.113.9"),
        (["203.0.113.9, fd00:1::5"], "203.0.113.9"),
        ([], EDGE),
        ([""], EDGE),
        ([","], EDGE),
        (["unknown"], EDGE),
        (["203.0.113.9, unknown"], EDGE),
        (["203.0.113.9, garbage, 10.0.0.3"], "10.0.0.3"),
        (["fe80::1%eth0"], EDGE),
        (["999.1.1.1"], EDGE),
        (["203.0.113.9\x00"], EDGE),
        (["9" * 100_000], EDGE),
        (["1.1.1.1," * 10_000 + "203.0.113.9"], "203.0.113.9"),
        ([",".join(["10.0.0.3"] * 10_000)], "10.0.0.3"),
    ],
)
async def test_the_first_from_the_right_who_is_no_proxy(lines: list[str], client: str) -> None:
    assert await seen(*lines) == client


@pytest.mark.parametrize(
    ("lines", "client"),
    [
        (["for=203.0.113.9"], "203.0.113.9"),
        (['For="[2001:db8::1]:4711";proto=https;by=10.0.0.7'], "2001:db8::1"),
        (["by=10.0.0.7;for=203.0.113.9"], "203.0.113.9"),
        (["for=1.1.1.1, for=203.0.113.9;proto=http, for=10.0.0.3"], "203.0.113.9"),
        (["for=203.0.113.9, for=_hidden"], EDGE),
        (["for=203.0.113.9, proto=http"], EDGE),
        (["203.0.113.9"], EDGE),
    ],
)
async def test_the_standard_header(lines: list[str], client: str) -> None:
    assert await seen(*lines, header="forwarded") == client


async def test_a_peer_that_is_not_trusted_is_itself_whatever_it_says() -> None:
    assert await seen("203.0.113.9", peer="198.51.100.4") == "198.51.100.4"
    assert await seen("203.0.113.9", peer="10.0.1.7") == "10.0.1.7"
    assert await seen("203.0.113.9", trusted=()) == EDGE


async def test_the_header_that_the_proxy_does_not_write_is_the_clients() -> None:
    assert await seen("for=1.1.1.1", name="forwarded") == EDGE
    assert await seen("1.1.1.1", header="forwarded", name="x-forwarded-for") == EDGE


async def test_a_trusted_peer_in_ipv6_clothes() -> None:
    assert await seen("203.0.113.9", peer="::ffff:10.0.0.7") == "203.0.113.9"


@given(st.lists(st.text(st.characters(max_codepoint=255), max_size=40), max_size=6))
async def test_no_header_breaks_it_or_gives_anything_but_an_address(lines: list[str]) -> None:
    for header in ("x-forwarded-for", "forwarded"):
        client = await seen(*lines, header=header)
        assert str(ip_address(client)) == client


@given(
    forged=st.lists(st.sampled_from(["1.1.1.1", "10.0.0.9", "garbage", "", "127.0.0.1", "::1"]), max_size=8),
    hops=st.lists(st.sampled_from(["10.0.0.3", "127.0.0.1", "fd00:1::9"]), max_size=4),
)
async def test_what_a_client_writes_never_changes_who_it_is(forged: list[str], hops: list[str]) -> None:
    assert await seen(",".join([*forged, "203.0.113.9", *hops])) == "203.0.113.9"


@pytest.mark.parametrize(
    ("text", "counted"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("", "unknown"),
        ("localhost", "unknown"),
        ("x" * 10_000, "unknown"),
    ],
)
def test_one_subscriber_is_one(text: str, counted: str) -> None:
    assert subscriber(text) == counted


@pytest.mark.parametrize(
    ("peer", "header", "inside"),
    [
        ("127.0.0.1", "", True),
        ("10.0.0.7", "", True),
        ("::ffff:10.0.0.7", "", True),
        ("fd00:1::1", "", True),
        ("203.0.113.9", "", False),
        ("", "", False),
        ("127.0.0.1", "x-forwarded-for", False),
        ("127.0.0.1", "X-Forwarded-Proto", False),
        ("127.0.0.1", "forwarded", False),
        ("127.0.0.1", "via", False),
        ("127.0.0.1", "x-real-ip", False),
    ],
)
def test_inside_is_direct(peer: str, header: str, inside: bool) -> None:
    scope = {"service.peer": peer, "headers": [(header.encode(), b"")] if header else []}
    assert from_inside(scope, TRUSTED) is inside
    assert from_inside({"headers": []}, TRUSTED) is False


def test_addresses_with_a_zone_are_none() -> None:
    assert parse_address("fe80::1%eth0") is None
    assert parse_address("1.2.3") is None
