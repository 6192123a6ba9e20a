"""Medians, ratios within a round, the share of rounds that is trusted, and what counts as a fault."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.jobs import report
from bench.jobs.cell import Plan, faults, percentile
from bench.jobs.figures import Cell, confidence, summary, targets
from bench.jobs.ledger import Ledger, Line
from bench.jobs.run import Result
from bench.jobs.table import BenchError, Entry, chosen

ARQ = Entry("arq", "", (), "as it comes")
PEER = Entry("peer", "", (), "quick")
OURS = Entry("ours, redis", "", (), "", ours=True)


def cells(**rates: list[float | None]) -> list[Cell]:
    names = {"arq": "arq", "peer": "peer", "ours": "ours, redis"}
    return [
        Cell(number, names[key], {"noop": rate} if rate else {}, {} if rate else {"noop": "lost 1"})
        for key, values in rates.items()
        for number, rate in enumerate(values, 1)
    ]


def test_a_ratio_is_taken_within_its_round() -> None:
    # The machine was twice as quick in the second round: that must not show in the ratio.
    rows = summary([ARQ, PEER, OURS], cells(arq=[100, 200, 100], peer=[400, 800, 500], ours=[500, 1000, 490]))
    ours = rows[2]
    assert (ours.measures["noop"].median, ours.measures["noop"].low, ours.measures["noop"].high) == (
        500,
        490,
        1000,
    )
    assert ours.to_baseline["noop"].median == 5.0
    assert ours.to_baseline["noop"].low == pytest.approx(4.9)
    assert ours.to_best_peer["noop"].median == 1.25
    assert ours.to_best_peer["noop"].low == pytest.approx(0.98)
    assert rows[1].to_best_peer["noop"].median == 1.0


def test_the_best_peer_is_never_our_own() -> None:
    rows = summary([ARQ, OURS], cells(arq=[100], ours=[900]))
    assert rows[1].to_best_peer["noop"].median == 9.0
    assert rows[0].to_best_peer["noop"].median == 1.0


def test_a_void_round_counts_nowhere() -> None:
    rows = summary([ARQ, PEER, OURS], cells(arq=[100, None], peer=[400, 400], ours=[200, 2000]))
    assert rows[0].measures["noop"].rounds == 1
    assert rows[0].void == ["round 2, noop: lost 1"]
    assert (rows[2].to_baseline["noop"].median, rows[2].to_baseline["noop"].rounds) == (2.0, 1)
    assert rows[2].to_best_peer["noop"].rounds == 2


def test_targets_are_judged_where_there_is_an_engine_of_ours() -> None:
    assert targets(summary([ARQ, PEER], cells(arq=[100], peer=[400]))) == []
    met = targets(summary([ARQ, PEER, OURS], cells(arq=[100], peer=[1000], ours=[700])))
    assert [(target.measured, target.met) for target in met] == [(7.0, True), (0.7, False)]
    assert all("(without the outbox)" in target.text for target in met)


def test_the_targets_are_for_the_engine_with_its_outbox() -> None:
    whole = replace(OURS, name="peer", ours=True, outbox=True)  # stands where the peer's figures are
    met = targets(summary([ARQ, whole, OURS], cells(arq=[100], peer=[300], ours=[700])))
    assert [(target.text, target.measured) for target in met] == [
        ("peer, the fastest engine: at least 0.8 of the best peer", 3.0)
    ]


def test_the_range_of_few_rounds_is_trusted_little() -> None:
    assert [confidence(rounds) for rounds in (1, 2, 5)] == [0.0, 0.5, 0.9375]


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile([3.0], 0.99) == 3.0


def test_a_ledger_in_which_each_job_stands_once_has_no_fault() -> None:
    assert faults([Line(1, 5, 6), Line(0, 1, 2)], 2, 2) == []
    assert faults([Line(0, 1, 2)], 1, 2) == ["1 of 2 jobs never ran (the first of them: 1)"]
    assert faults([Line(0, 1, 2), Line(0, 3, 4)], 9, 1) == ["1 of 1 jobs ran more than once (9 runs in all)"]


def test_a_ledger_counts_what_it_has_no_room_for(tmp_path: Path) -> None:
    writer = Ledger(tmp_path / "ran", 2)
    reader = Ledger(tmp_path / "ran")
    for number in range(3):
        writer.end(writer.begin(number))
    assert reader.counts() == (3, 3)
    lines = reader.lines()
    assert [line.number for line in lines] == [0, 1]
    assert all(0 < line.begin <= line.end for line in lines)


def test_contenders_are_chosen_by_the_beginning_of_their_names() -> None:
    assert [entry.name for entry in chosen("OURS redis, p", (ARQ, PEER, OURS))] == ["peer", "ours, redis"]
    assert len(chosen("", (ARQ, PEER))) == 2
    with pytest.raises(BenchError, match=r"no contender 'celery'; there are: arq; peer"):
        chosen("celery", (ARQ, PEER))


def test_figures_are_published_in_place_of_the_former(tmp_path: Path) -> None:
    found = cells(arq=[100, 100], peer=[None, 400], ours=[700, 700])
    rows = summary([ARQ, PEER, OURS], found)
    names = [entry.name for entry in (ARQ, PEER, OURS)]
    result = Result(
        started="2026-11-21",
        rounds=2,
        plan=Plan(),
        machine={"CPU": "x"},
        settings=dict.fromkeys(names, "s"),
        versions={name: {"package": "1"} for name in names},
        cells=found,
        rows=rows,
        targets=targets(rows),
        left_out={"SAQ": "not installed"},
    )
    assert Result.of(json.dumps(result.document())) == result
    guide = tmp_path / "guide.md"
    guide.write_text(f"before\n{report.BEGIN}\nyesterday\n{report.END}\nafter\n")
    report.publish(result, guide)
    report.publish(result, guide)
    text = guide.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "yesterday" not in text
    assert text.count("**ours, redis**") == 1
    assert "- peer: round 1, noop: lost 1" in text
    assert "SAQ: not installed" in text
    assert "7.00 (7.00 to 7.00)" in text
    guide.write_text("no place")
    with pytest.raises(ValueError, match="no place for figures"):
        report.publish(result, guide)
