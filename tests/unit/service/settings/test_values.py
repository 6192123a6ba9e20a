"""How rates and networks are written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.settings import Rate
from service.settings.values import parse_networks


@pytest.mark.parametrize(
    ("text", "limit", "seconds"),
    [
        ("100/hour", 100, 3600),
        ("5/minute", 5, 60),
        ("1/second", 1, 1),
        ("7/day", 7, 86_400),
        ("5/10 seconds", 5, 10),
        ("5 / 15 Minutes", 5, 900),
        (" 100/hours ", 100, 3600),
    ],
)
def test_a_rate(text: str, limit: int, seconds: int) -> None:
    assert Rate.parse(text) == Rate(limit, seconds)


@pytest.mark.parametrize(
    "text",
    ["", "100", "100/", "/hour", "0/hour", "5/0 seconds", "-1/hour", "1.5/hour", "100/week", "1/32 days",
     "9999999999/hour", "100 per hour", "٣/hour/", "100/hour; DROP"],
)  # fmt: skip
def test_no_rate(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        Rate.parse(text)


@given(st.builds(Rate, st.integers(1, 999_999_999), st.integers(1, 31 * 86_400)))
def test_a_rate_reads_what_it_writes(rate: Rate) -> None:
    assert Rate.parse(str(rate)) == rate


def test_networks() -> None:
    assert [str(n) for n in parse_networks("10.0.0.1, ::1,192.168.0.0/16,")] == [
        "10.0.0.1/32", "::1/128", "192.168.0.0/16",
    ]  # fmt: skip
    assert parse_networks("") == ()
    for text in ("10.0.0.1/8", "localhost", "10.0.0.0/33", "*"):
        with pytest.raises(ValueError, match="is not an address or a network"):
            parse_networks(text)
