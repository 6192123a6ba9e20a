"""Secrets and personal data are masked by key and by pattern, and nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability.redaction import MASK, is_sensitive, redact, redact_text


@pytest.mark.parametrize(
    "key",
    [
        "password", "PASSWORD", "db_password", "passwd", "pwd", "token", "access_token", "refreshToken",
        "secret", "client-secret", "authorization", "Authorization", "cookie", "set-cookie", "Set_Cookie",
        "api_key", "X-Api-Key", "apikey", "email", "userEmail", "iban", "card", "card_number", "creditCard",
        "cvv", "private_key", "credentials", "phone", "phone_number",
    ],
)  # fmt: skip
def test_sensitive_keys(key: str) -> None:
    assert is_sensitive(key)
    assert redact({key: "value"}) == {key: MASK}


@pytest.mark.parametrize(
    "key",
    [
        "amount",
        "currency",
        "reference",
        "userId",
        "requestId",
        "cardinality",
        "passed",
        "compass",
        "spin",
        "author",
        "path",
    ],
)
def test_harmless_keys(key: str) -> None:
    assert not is_sensitive(key)


def test_containers_are_followed_and_copied() -> None:
    original = {"user": {"email": "a@b.c", "roles": ["x", {"token": ("t",)}]}, "card": {"pan": 1}, "count": 3}
    assert redact(original) == {
        "user": {"email": MASK, "roles": ["x", {"token": MASK}]},
        "card": MASK,
        "count": 3,
    }
    assert original["count"] == 3
    assert original["card"] == {"pan": 1}


def test_nothing_and_yes_or_no_reveal_nothing() -> None:
    assert redact({"password": None, "email": True, "pin": 1234}) == {
        "password": None,
        "email": True,
        "pin": MASK,
    }


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("redis://:s3cret@cache:6379/0", f"redis://:{MASK}@cache:6379/0"),
        ("postgresql://app:s3cret@db:5432/x failed", f"postgresql://app:{MASK}@db:5432/x failed"),
        ("postgresql+asyncpg://app:p:a@ss@db/x", f"postgresql+asyncpg://app:{MASK}@db/x"),
        ("two amqp://a:b@c/ and amqp://d:e@f/", f"two amqp://a:{MASK}@c/ and amqp://d:{MASK}@f/"),
        ("https://ghp_token@host/repo", f"https://{MASK}@host/repo"),
        ("Authorization: Bearer abc.def-ghi", f"Authorization: {MASK}"),
        ("sent bearer abcdef123", f"sent bearer {MASK}"),
        ("Authorization: Basic dXNlcjpwdw==", f"Authorization: {MASK}"),
        ("password=hunter2&x=1", f"password={MASK}&x=1"),
        ('{"password": "hunter2", "x": 1}', f'{{"password": "{MASK}", "x": 1}}'),
        (
            "DATABASE_PASSWORD=hunter2 REDIS_SECRET: 'x y'",
            f"DATABASE_PASSWORD={MASK} REDIS_SECRET: '{MASK} y'",
        ),
        ("api-key: k1", f"api-key: {MASK}"),
        ("jwt eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl end", f"jwt {MASK} end"),
    ],
)
def test_patterns_in_text(text: str, clean: str) -> None:
    assert redact_text(text) == clean
    assert redact_text(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8000/v1/items?limit=3",
        "GET /v1/items/{item_id}",
        "at 10:30 joe@example.org wrote",
        "see https://example.org/a@b",
        "token bucket is empty",
        "ratio 3:4",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert redact_text(text) == text


def test_long_text_is_cut() -> None:
    assert len(redact_text("x" * 1_000_000)) < 33_000


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit", ["://", "a:", "password=", "eyJaaaaaa.", "bearer ", "://a:", "@", "\\" * 2, " " * 2]
)
def test_hostile_text_does_not_stall(unit: str) -> None:
    for _ in range(20):
        redact_text(unit * (32_000 // len(unit)) + "@")


def test_values_that_know_how_to_be_written_stay() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert redact(moment) is moment


def test_depth_ends() -> None:
    deep: dict[str, object] = {}
    inner = deep
    for _ in range(50):
        inner["next"] = {}
        inner = inner["next"]  # type: ignore[assignment]
    inner["password"] = "p"
    assert "'p'" not in str(redact(deep))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=8) | st.just("password"), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(_JSON)
def test_whatever_is_under_a_sensitive_key_is_gone(value: object) -> None:
    secret = "zq-the-secret-zq"
    assert secret not in str(redact({"a": [{"userPassword": [secret, value], "x": value}]}))
