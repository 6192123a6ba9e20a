"""Keys of one generator, whatever its clock does."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.db.snowflake import (
    LAST_MS,
    NODES,
    SEQUENCES,
    TOLERANCE_MS,
    ClockError,
    ReservationError,
    Snowflake,
    wall_clock,
)

START = 60_000_000_000


def scripted(readings: list[int]) -> Callable[[], int]:
    """A clock that shows these times one after the other, and stands at the last."""
    left = list(reversed(readings))
    return lambda: left.pop() if len(left) > 1 else left[0]


@given(
    node=st.integers(0, NODES - 1),
    steps=st.lists(st.integers(-TOLERANCE_MS, 60_000) | st.just(0), min_size=1, max_size=300),
    start=st.integers(TOLERANCE_MS * 400, LAST_MS - 60_000 * 400),
)
def test_keys_are_unique_and_ascend_and_fit_in_a_signed_64_bit_number(
    node: int, steps: list[int], start: int
) -> None:
    times = [start]
    for step in steps:
        # Never further behind the latest time than is tolerated.
        times.append(max(times[-1] + step, max(times) - TOLERANCE_MS + 400))
    keys_of = Snowflake(node, after_ms=start - 1, until_ms=LAST_MS, clock=scripted(times))
    keys = [keys_of.next() for _ in times]
    assert keys == sorted(set(keys))
    assert all(0 < key < 1 << 63 for key in keys)
    assert {key >> 12 & NODES - 1 for key in keys} == {node}
    assert all(start <= key >> 22 <= max(times) + 1 for key in keys)


@given(
    after=st.integers(0, 1000),
    length=st.integers(0, 3),
    times=st.lists(st.integers(0, 2000), min_size=1, max_size=50),
)
def test_no_key_is_outside_of_what_is_reserved(after: int, length: int, times: list[int]) -> None:
    keys_of = Snowflake(0, after_ms=after, until_ms=after + length, clock=scripted(times))
    for _ in range(SEQUENCES + len(times)):
        try:
            key = keys_of.next()
        except ReservationError:
            continue
        assert after < key >> 22 <= after + length


def test_a_clock_that_stands_still_borrows_from_the_time_to_come() -> None:
    keys_of = Snowflake(7, after_ms=START - 1, until_ms=START + 10, clock=lambda: START)
    keys = [keys_of.next() for _ in range(3 * SEQUENCES)]
    assert keys == sorted(set(keys))
    assert [key >> 22 for key in (keys[0], keys[-1])] == [START, START + 2]
    assert [key & SEQUENCES - 1 for key in keys[:3]] == [0, 1, 2]


def test_a_clock_far_back_is_refused_until_it_is_right() -> None:
    now = START
    keys_of = Snowflake(0, after_ms=0, until_ms=LAST_MS, clock=lambda: now)
    first = keys_of.next()
    now = START - TOLERANCE_MS
    second = keys_of.next()
    now -= 1
    for _ in range(2):
        with pytest.raises(ClockError):
            keys_of.next()
    now = START
    assert first < second < keys_of.next()


def test_a_refused_key_uses_nothing_up() -> None:
    keys_of = Snowflake(0, after_ms=START - 1, until_ms=START, clock=lambda: START)
    keys = [keys_of.next() for _ in range(SEQUENCES)]
    for _ in range(2):
        with pytest.raises(ReservationError):
            keys_of.next()
    keys_of.until_ms = START + 1
    assert keys_of.next() == keys[-1] + (1 << 22) - (SEQUENCES - 1)


@pytest.mark.parametrize("node", [-1, NODES])
def test_a_node_that_does_not_fit_is_refused(node: int) -> None:
    with pytest.raises(ValueError, match="0 to 1023"):
        Snowflake(node, after_ms=0, until_ms=1)


@pytest.mark.parametrize(("after", "until"), [(-1, 5), (5, 4), (0, LAST_MS + 1)])
def test_milliseconds_that_do_not_fit_are_refused(after: int, until: int) -> None:
    with pytest.raises(ValueError, match="milliseconds"):
        Snowflake(0, after_ms=after, until_ms=until)


def test_the_layout_is_as_documented() -> None:
    before = wall_clock()
    key = Snowflake(0x2AB, after_ms=0, until_ms=LAST_MS).next()
    assert before <= key >> 22 <= wall_clock()
    assert key >> 12 & 0x3FF == 0x2AB
    assert key & 0xFFF == 0
