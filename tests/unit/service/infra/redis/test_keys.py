"""Keys: what is refused, and that the prefix comes off as it went on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.infra.redis import RedisKeyFault, RedisKeyTooLongFault
from service.infra.redis.keys import MAX_KEY_LENGTH, Keyspace, check_key

CONTROL = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029]))
good_keys = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=CONTROL), min_size=1, max_size=MAX_KEY_LENGTH
)
prefixes = st.from_regex(r"[A-Za-z0-9_.:-]{1,100}", fullmatch=True)


@given(prefixes, good_keys)
def test_a_key_comes_back_as_it_was(prefix: str, key: str) -> None:
    keys = Keyspace(prefix)
    full = keys.full(key)
    assert full == prefix + key
    assert keys.bare(full.encode()) == key


@given(prefixes, good_keys, good_keys)
def test_different_keys_stay_different(prefix: str, one: str, other: str) -> None:
    keys = Keyspace(prefix)
    assert (keys.full(one) == keys.full(other)) == (one == other)


@given(st.text(), st.sampled_from(CONTROL), st.text())
def test_a_control_character_anywhere_is_refused(before: str, control: str, after: str) -> None:
    with pytest.raises(RedisKeyFault):
        check_key(before + control + after)


@given(st.text(min_size=MAX_KEY_LENGTH + 1, max_size=MAX_KEY_LENGTH * 2))
def test_a_long_key_is_too_long(key: str) -> None:
    with pytest.raises(RedisKeyTooLongFault):
        check_key(key)


def test_the_limit_is_on_the_key_as_it_is_written() -> None:
    keys = Keyspace("yardstick:")
    assert len(keys.full("k" * 512)) == 522
    with pytest.raises(RedisKeyTooLongFault, match="513 characters, at most 512"):
        keys.full("k" * 513)


@pytest.mark.parametrize(
    "key", ["", "a\nb", "a\r\nDEL b", "a\x00b", "\ud800", None, 7, b"bytes", ["a"], True]
)
def test_what_is_no_key_is_refused_and_not_repeated(key: object) -> None:
    with pytest.raises(RedisKeyFault) as raised:
        Keyspace("p:").full(key)  # type: ignore[arg-type]
    assert not isinstance(raised.value, RedisKeyTooLongFault)
    assert "DEL" not in str(raised.value)


def test_a_key_of_somebody_else_is_no_key_of_ours() -> None:
    with pytest.raises(ValueError, match="outside"):
        Keyspace("p:").bare(b"q:key")
