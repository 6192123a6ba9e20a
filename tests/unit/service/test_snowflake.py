"""Keys: unique, ascending, 63 bits, whatever the clock does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.db.snowflake import EPOCH_MS, NODES, Snowflake, node_of


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(0, NODES - 1))
def test_keys_ascend_however_the_clock_jumps(moments: list[int], node: int) -> None:
    clock = iter([EPOCH_MS + 1000 + moment for moment in moments])
    keys = Snowflake(node, lambda: next(clock))
    made = [keys.next() for _ in moments]
    assert made == sorted(set(made))
    assert {key >> 12 & 1023 for key in made} == {node}
    assert all(0 < key < 1 << 63 for key in made)


def test_more_keys_than_a_millisecond_holds() -> None:
    keys = Snowflake(3, lambda: EPOCH_MS + 5)
    made = [keys.next() for _ in range(10_000)]
    assert len(set(made)) == 10_000
    assert made == sorted(made)


def test_two_nodes_never_meet() -> None:
    one, other = (Snowflake(node, lambda: EPOCH_MS + 5) for node in (1, 2))
    assert not {one.next() for _ in range(5000)} & {other.next() for _ in range(5000)}


def test_nodes_are_in_range() -> None:
    assert all(0 <= node_of(f"host:{pid}") < NODES for pid in range(1000))
    assert len({node_of(f"host:{pid}") for pid in range(100)}) > 80
    with pytest.raises(ValueError, match="0 to 1023"):
        Snowflake(1024)
