"""Values: what is stored how, what comes back, and what is refused."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import UnavailableError
from service.infra.redis import (
    RedisConnectionFault,
    RedisDecodeFault,
    RedisEncodeFault,
    RedisFault,
    RedisTimeoutFault,
    RedisValueTooLargeFault,
    from_json,
    from_text,
    to_json,
)
from service.infra.redis.values import Values

LIMIT = 10_485_760
values = Values(LIMIT)
texts = st.text(st.characters(exclude_categories=["Cs"]))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(json_values.filter(lambda value: not isinstance(value, str)))
def test_what_json_holds_comes_back(value: object) -> None:
    assert from_json(values.encode(value)) == value


@given(st.binary())
def test_bytes_stay_bytes(value: bytes) -> None:
    assert values.encode(value) == value
    assert values.encode(bytearray(value)) == value


@given(texts)
def test_text_stays_text(value: str) -> None:
    assert from_text(values.encode(value)) == value
    assert from_json(to_json(value)) == value


@dataclass
class Money:
    amount: Decimal
    at: datetime


def test_the_values_of_our_domain_are_json() -> None:
    key = UUID(int=7)
    money = Money(Decimal("12.50"), datetime(2026, 11, 21, tzinfo=UTC))
    assert from_json(values.encode({"id": key, "money": money, "tags": {"a"}})) == {
        "id": str(key),
        "money": {"amount": "12.50", "at": "2026-11-21T00:00:00+00:00"},
        "tags": ["a"],
    }


@pytest.mark.parametrize("value", [object(), 2**70, {"a": object()}, "\ud800", ["\ud800"], {1j: 1}])
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(RedisEncodeFault):
        values.encode(value)


def test_a_cycle_is_refused() -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    with pytest.raises(RedisEncodeFault):
        values.encode(cycle)


def test_not_a_number_reads_as_null() -> None:
    assert from_json(values.encode([math.nan, math.inf])) == [None, None]


def test_ten_megabytes_fit_and_one_byte_more_does_not() -> None:
    assert len(values.encode(b"x" * LIMIT)) == LIMIT
    for value in (b"x" * (LIMIT + 1), "ü" * (LIMIT // 2 + 1), ["x" * LIMIT]):
        with pytest.raises(RedisValueTooLargeFault, match=f"at most {LIMIT}"):
            values.encode(value)


@pytest.mark.parametrize("raw", [b"", b"{", b"nan", b"secret-value", b"\xff"])
def test_what_is_not_json_is_refused_and_not_repeated(raw: bytes) -> None:
    with pytest.raises(RedisDecodeFault) as raised:
        from_json(raw)
    assert "secret" not in str(raised.value)


def test_what_is_not_text_is_refused() -> None:
    with pytest.raises(RedisDecodeFault, match="not UTF-8 at byte 2"):
        from_text(b"ok\xff")


def test_a_client_sees_503_for_a_server_that_is_away_and_nothing_of_the_reason() -> None:
    for fault in (RedisConnectionFault("10.0.0.7 refused"), RedisTimeoutFault("10.0.0.7 silent")):
        assert isinstance(fault, UnavailableError)
        assert (fault.status, fault.code, fault.headers) == (503, "unavailable", {"Retry-After": "2"})
        assert "10.0.0.7" in str(fault)
        assert "10.0.0.7" not in fault.message


def test_a_client_sees_a_plain_500_for_our_own_mistakes() -> None:
    fault: RedisFault = RedisEncodeFault("Money: no")
    assert (fault.status, fault.code) == (500, "internal")
    assert not isinstance(fault, UnavailableError)
    assert "Money" not in fault.message
