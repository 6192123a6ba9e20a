"""Figures at rest and under load, and the guide they are published in."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.docker import Container
from compose.measure import ALL, GUIDE, Figures, Sample, markdown, measure, of_containers, publish, summary
from compose.model import StackError
from compose.usage import Usage

MIB = 2**20
FIGURES = Figures(
    "native",
    {"api": Usage(80 * MIB, 0.5), ALL: Usage(80 * MIB, 0.5)},
    {"api": Usage(90 * MIB, 61.04), "worker": Usage(70 * MIB, 20.0), ALL: Usage(160 * MIB, 81.04)},
    60.0,
    "average",
)


def test_the_highest_memory_and_the_mean_cpu_count() -> None:
    samples: list[Sample] = [
        {"api": Usage(10, 1.0), "worker": Usage(5, 2.0)},
        {"api": Usage(8, 3.0), "worker": Usage(20, 0.0)},
        {"api": Usage(9, 2.0)},
    ]
    found = summary(samples)
    assert found["api"] == Usage(10, 2.0)
    assert (found["worker"].memory, round(found["worker"].cpu, 3)) == (20, 0.667)
    # The highest of the sums, and not the sum of peaks that never met.
    assert (found[ALL].memory, round(found[ALL].cpu, 3)) == (28, 2.667)
    assert list(found) == ["api", "worker", ALL]


def test_replicas_are_added_up_and_what_does_not_run_is_left_out() -> None:
    rows = [
        Container("api", "api-1", "healthy", "i", "80MiB / 384MiB", "1.5%"),
        Container("api", "api-2", "healthy", "i", "70MiB / 384MiB", "0.5%"),
        Container("migrate", "migrate-1", "done", "i"),
    ]
    assert of_containers(lambda: rows)() == {"api": Usage(150 * MIB, 2.0)}


def phases() -> Iterator[Sample]:
    yield {"api": Usage(1, 1.0)}
    while True:
        yield {"api": Usage(2, 50.0)}


@pytest.mark.parametrize("code", [0, 99])
def test_the_load_is_watched_as_long_as_it_runs(code: int) -> None:
    samples = phases()
    load = [sys.executable, "-c", f"import time; time.sleep(0.3); raise SystemExit({code})"]
    found = measure("native", lambda: next(samples), lambda _: None, seconds=0, scenario="average", load=load)
    assert found.rest["api"] == Usage(1, 1.0)
    assert found.load["api"] == Usage(2, 50.0)


def test_a_load_test_that_did_not_come_to_its_end_gives_no_figures() -> None:
    samples = phases()
    with pytest.raises(StackError, match="the load test ended with 98; there are no figures under load"):
        measure(
            "native", lambda: next(samples), lambda _: None, seconds=0, scenario="average",
            load=[sys.executable, "-c", "raise SystemExit(98)"],
        )  # fmt: skip


def test_without_a_stack_there_is_nothing_to_measure() -> None:
    with pytest.raises(StackError, match="the stack is not up"):
        measure("native", dict, lambda _: None, seconds=0, scenario="average", load=["/bin/true"])


def test_the_table_has_a_row_for_each_component_and_the_conditions_below() -> None:
    lines = markdown(FIGURES, "2026-11-21").splitlines()
    assert lines[2:5] == [
        "| api | 80 MiB | 0.5 % | 90 MiB | 61.0 % |",
        "| worker | - | - | 70 MiB | 20.0 % |",
        "| **in all** | 80 MiB | 0.5 % | 160 MiB | 81.0 % |",
    ]
    assert "at rest over 60 s. 2026-11-21, " in lines[-1]


def test_publishing_replaces_the_figures_of_its_mode_alone(tmp_path: Path) -> None:
    guide = tmp_path / "guide.md"
    guide.write_text(GUIDE.read_text("utf-8"), "utf-8")
    publish(FIGURES, "2001-02-03", guide)
    publish(FIGURES, "2001-02-04", guide)
    text = guide.read_text("utf-8")
    assert text.count("| api | 80 MiB |") == 1
    assert "2001-02-04" in text
    assert "2001-02-03, " not in text
    assert "<!-- usage:docker:begin -->" in text
    guide.write_text("no place", "utf-8")
    with pytest.raises(StackError, match="has no place for the figures"):
        publish(FIGURES, "2001-02-03", guide)
