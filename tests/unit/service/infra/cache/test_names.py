"""Names are plain, short, and different for different texts."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from enum import StrEnum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.infra.cache.errors import CacheKeyError
from service.infra.cache.names import Names, domain_tag, plain, render

TEXT = st.text(st.characters(), min_size=1, max_size=300) | st.text("a:%/ ~.", min_size=1)


@given(TEXT)
def test_a_plain_name_fits_into_a_key_and_a_list_of_tags(text: str) -> None:
    name = plain(text)
    assert 0 < len(name) <= 200
    assert not re.search(r"[\s=\x00-\x1f]", name)
    assert name == plain(text)


@given(TEXT, TEXT)
def test_two_texts_have_two_names(one: str, other: str) -> None:
    assert (plain(one) == plain(other)) == (one == other)


@given(TEXT)
def test_no_text_is_the_tag_of_a_domain_nor_the_name_of_another_text(text: str) -> None:
    assert plain(text) != domain_tag("users")
    assert plain(plain(text)) == plain(text) or "~" in plain(text)


@given(st.tuples(TEXT, TEXT), st.tuples(TEXT, TEXT))
def test_two_arguments_give_two_keys(one: tuple[str, str], other: tuple[str, str]) -> None:
    keys = [render("{a}:{b}", {"a": a, "b": b}) for a, b in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)


class Color(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (True, "True"),
        (None, "None"),
        (Decimal("1.50"), "1.50"),
        (Color.RED, "red"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (datetime(2026, 11, 21, tzinfo=UTC), "2026-11-21%2000%3A00%3A00%2B00%3A00"),
        ("ä b", "%C3%A4%20b"),
    ],
)
def test_values_have_their_usual_text(value: object, text: str) -> None:
    assert render("x:{value}", {"value": value}) == f"x:{text}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{nobody}", "there is no argument"),
        ("{value.nothing}", "has no 'nothing'"),
        ("{value!r}", "no format"),
        ("{value:>10}", "no format"),
        ("{list}", "no stable text"),
        ("{thing}", "no stable text"),
    ],
)
def test_a_template_that_makes_no_key_is_refused(template: str, message: str) -> None:
    with pytest.raises(CacheKeyError, match=message):
        render(template, {"value": 1, "list": [1], "thing": object()})


def test_names_are_without_repetition() -> None:
    names = Names.of("users", ["a", "b", "a"], ["t", "t"])
    assert names.keys == (("users", "a"), ("users", "b"))
    assert names.tags == ("t",)
    with pytest.raises(CacheKeyError):
        Names.of("users", [""])
