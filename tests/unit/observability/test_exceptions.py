"""Exceptions as data: chains, groups, limits, and no way to break them."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from observability.exceptions import LIMIT_BYTES, structured


def caught(raiser: Callable[[], object]) -> Exception:
    try:
        raiser()
    except Exception as error:  # noqa: BLE001 - any kind is what is tested
        return error
    raise AssertionError("nothing was raised")


def chained() -> None:
    try:
        try:
            int("x")
        except ValueError as error:
            raise KeyError("middle") from error
    except KeyError:
        raise RuntimeError("last")  # noqa: B904 - the implicit context is what is tested


def test_cause_and_context_follow_the_exception() -> None:
    entries = structured(caught(chained))
    assert [entry["type"] for entry in entries] == ["RuntimeError", "KeyError", "ValueError"]
    assert set(entries[0]) == {"type", "value", "frames"}
    assert set(entries[0]["frames"][0]) == {"file", "line", "function"}
    assert entries[0]["frames"][-1]["function"] == "chained"


def test_from_none_hides_the_context() -> None:
    def hidden() -> None:
        try:
            int("x")
        except ValueError:
            raise KeyError("only this") from None

    assert [entry["type"] for entry in structured(caught(hidden))] == ["KeyError"]


def test_a_circle_of_causes_ends() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert [entry["value"] for entry in structured(first)] == ["a", "b"]


def test_groups_hold_their_members_with_their_chains() -> None:
    error = ExceptionGroup("many", [caught(chained), ExceptionGroup("inner", [OSError("disk")])])
    (entry,) = structured(error)
    assert entry["type"] == "ExceptionGroup"
    assert [chain[0]["type"] for chain in entry["exceptions"]] == ["RuntimeError", "ExceptionGroup"]
    assert len(entry["exceptions"][0]) == 3
    assert entry["exceptions"][1][0]["exceptions"][0][0]["value"] == "disk"


def test_the_type_is_named_with_its_module() -> None:
    assert structured(orjson.JSONDecodeError("x", "y", 0))[0]["type"] == "orjson.JSONDecodeError"


def deep(levels: int) -> None:
    if levels:
        deep(levels - 1)
    raise ValueError("x" * 100_000)


@pytest.mark.parametrize(
    "error",
    [
        caught(lambda: deep(500)),
        caught(deep.__get__(900)),
        ExceptionGroup("g" * 9_000, [ValueError("m" * 50_000) for _ in range(500)]),
        ExceptionGroup(
            "g", [ExceptionGroup("h", [caught(lambda: deep(200)) for _ in range(30)]) for _ in range(30)]
        ),
        type("N" * 50_000, (Exception,), {})("x"),
    ],
    ids=["deep", "recursive", "group", "tree", "name"],
)
def test_everything_fits_in_32_kb(error: BaseException) -> None:
    entries = structured(error)
    assert entries[0]["type"]
    assert len(orjson.dumps(entries)) <= LIMIT_BYTES


def test_many_frames_lose_their_middle() -> None:
    frames = structured(caught(lambda: deep(200)), limit=200_000)[0]["frames"]
    assert len(frames) == 61
    assert any("frames left out" in frame["function"] for frame in frames)
    assert frames[-1]["function"] == "deep"


def test_text_that_cannot_be_had_or_encoded() -> None:
    class Mute(Exception):  # noqa: N818
        def __str__(self) -> str:
            raise RuntimeError("no")

    assert structured(Mute())[0]["value"] == "<str() raised RuntimeError>"
    assert structured(ValueError("\ud800"))[0]["value"] == "\\ud800"


def test_credentials_are_masked() -> None:
    assert "hunter2" not in str(structured(ValueError("redis://:hunter2@cache")))
