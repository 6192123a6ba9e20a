"""Which components come along, and in which order they start and stop."""

import pytest

from compose.components import COMPONENTS
from compose.graph import by_name, closure, levels, order
from compose.model import Component, Finished, StackError


def component(name: str, needs: tuple[str, ...] = (), uses: tuple[str, ...] = ()) -> Component:
    return Component(name=name, program="python", about="", ready=Finished(), needs=needs, uses=uses)


def test_a_choice_brings_what_it_needs_but_not_what_it_merely_uses() -> None:
    names = [one.name for one in closure(["api"], COMPONENTS)]
    assert names == ["postgres", "redis", "migrate", "api"]


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(StackError, match=r"no component 'lokki'; there are: .*loki"):
        closure(["lokki"], COMPONENTS)


def test_everything_stands_after_what_it_needs() -> None:
    names = [one.name for one in order(tuple(reversed(COMPONENTS)))]
    for one in COMPONENTS:
        assert all(names.index(need) < names.index(one.name) for need in one.needs)


def test_a_circle_and_a_hole_are_named() -> None:
    with pytest.raises(StackError, match=r"circle.*: a, b$"):
        order([component("a", ("b",)), component("b", ("a",)), component("c")])
    with pytest.raises(StackError, match=r"not there: a$"):
        order([component("a", ("nobody",))])


def test_what_sends_telemetry_stops_before_what_takes_it_and_the_stores_last() -> None:
    place = {one.name: i for i, step in enumerate(levels(COMPONENTS)) for one in step}
    assert place["api"] < place["otelcol"] < place["loki"] < place["prometheus"] < place["alertmanager"]
    assert place["api"] < place["migrate"] < place["postgres"]
    assert place["api"] < place["redis"]
    assert len(place) == len(COMPONENTS)


def test_a_circle_of_use_does_not_hinder_stopping() -> None:
    steps = levels([component("a", uses=("b",)), component("b", uses=("a",)), component("c")])
    assert [[one.name for one in step] for step in steps] == [["c"], ["a", "b"]]


def test_names_are_the_keys() -> None:
    assert list(by_name(COMPONENTS)) == [one.name for one in COMPONENTS]
