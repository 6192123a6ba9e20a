import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest import junit, report, stats
from loadtest.gate import Check
from loadtest.report import charts, words
from loadtest.result import GeneratorFigures, Result, SlowTrace, link
from loadtest.server import Series, ServerView
from loadtest.target import Stack
from loadtest.verdict import Code, Verdict

FAILED = Check("fast", "GET /a", "≥ 99 % within 250 ms", "98 %", False, 0.98, 0.99, -1.0, 100, 2)
PASSED = Check("up", "all requests", "≥ 99.9 % answered right", "100 %", True, 1.0, 0.999, 1.0, 100, 0)
EVIL = '<script>alert("x")</script>'


@pytest.fixture
def result() -> Result:
    figures = stats.RouteFigures(
        "GET /a",
        True,
        1234,
        2,
        12.3,
        {f"{p:g}": 10.0 * p for p in stats.PERCENTILES},
        1204.0,
        [(0, 1), (90, 7)],
    )
    return Result(
        run_id="run-1",
        scenario="demo",
        title="A title",
        target="http://127.0.0.1:8000",
        verdict=Verdict(Code.SLO_FAILED, ("fast on GET /a: 98 %, required ≥ 99 % within 250 ms",)),
        started="2026-11-21T08:00:00.000+00:00",
        load_seconds=60.0,
        planned_seconds=60,
        requests=1234,
        failed=2,
        rate=20.5,
        overall=figures,
        checks=(FAILED, PASSED),
        routes=(figures, replace(figures, route="settle transaction", is_http=False, max_ms=None)),
        errors=(stats.ErrorFigures("GET /a", f"answered 500 {EVIL}", 2),),
        timeline=tuple(
            stats.Bucket(n + 0.5, 20 + n, 0, 3, 1.0, 2.0, None if n == 4 else 3.0, None) for n in range(9)
        ),
        server=ServerView((Series("rate", "server: requests", "/s", ((0, 19.0), (5, 21.0))),), ("no p99",)),
        slowest=(SlowTrace("GET /a", 12.0, 3.0, "ab" * 16, "http://grafana/explore?x=1&y=2", ""),),
        generator=GeneratorFigures(0.123, 0.3, 0.7, 12.0),
        environment={"CPU": "some", "commit": "abc"},
        settings={"model": {"users": 3}, "think_seconds": [0.5, 1]},
        warmup_seconds=5,
        latency_limit_ms=250,
    )


class Page(HTMLParser):
    """Collects what a page loads, links to and shows."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.shown: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in {"src", "srcset", "data"}]
        self.links += [value or "" for name, value in attrs if name == "href" and tag == "a"]

    def handle_data(self, data: str) -> None:
        self.shown.append(data.strip())


def test_the_page_is_whole_in_itself_and_says_the_verdict_first(result: Result, tmp_path: Path) -> None:
    report.write(result, tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.loads == []
    assert not {"script", "link", "iframe", "img", "object"} & set(page.tags)
    assert "url(" not in text
    assert "@import" not in text
    body = [shown for shown in page.shown[page.shown.index("failed") :] if shown]
    assert body[:2] == ["failed", "A title"]
    assert page.links == ["http://grafana/explore?x=1&y=2"]
    assert page.tags.count("svg") == 5


def test_texts_from_the_target_are_shown_and_not_run(result: Result, tmp_path: Path) -> None:
    hostile = replace(result, title=EVIL, target=f"http://x/{EVIL}")
    report.write(hostile, tmp_path)
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_a_run_without_samples_still_has_a_report(result: Result, tmp_path: Path) -> None:
    empty = replace(
        result,
        verdict=Verdict(Code.STACK_FAILED, ("nothing answers",)),
        overall=None,
        routes=(),
        errors=(),
        timeline=(),
        server=ServerView(),
        slowest=(),
        generator=GeneratorFigures(None, None, 0.7, 0.0),
        load_seconds=0.0,
    )
    report.write(empty, tmp_path)
    assert "stack failed" in (tmp_path / "report.html").read_text()
    assert (
        (tmp_path / "summary.md").read_text().startswith("# STACK FAILED: demo against http://127.0.0.1:8000")
    )


def test_every_markdown_table_row_has_as_many_cells_as_its_head(result: Result, tmp_path: Path) -> None:
    piped = replace(result, errors=(stats.ErrorFigures("GET /a", "a|b", 1),))
    report.write(piped, tmp_path)
    for table in re.findall(r"(?:^\|.*\n)+", (tmp_path / "summary.md").read_text(), re.MULTILINE):
        cells = [len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()]
        assert len(set(cells)) == 1, table


def test_json_is_complete_and_plain(result: Result) -> None:
    content = json.loads(result.as_json())
    assert content["verdict"] == {"code": 99, "words": "failed", "reasons": list(result.verdict.reasons)}
    assert content["checks"][0]["margin"] == -1.0
    assert content["routes"][0]["percentiles_ms"]["99.9"] == 999.0


@pytest.mark.parametrize(
    ("code", "errors"), [(Code.SLO_FAILED, 0), (Code.STACK_FAILED, 1), (Code.ABORTED, 1)]
)
def test_junit_counts_missed_limits_as_failures_and_invalid_runs_as_errors(
    result: Result, code: Code, errors: int
) -> None:
    text = junit.render(replace(result, verdict=Verdict(code, ("why",))))
    suite = ET.fromstring(text).find("testsuite")  # noqa: S314 - our own
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", str(errors))
    assert len(suite.findall("testcase/failure")) == 1
    assert len(suite.findall("testcase/error")) == errors


def test_links_go_to_grafana_else_tempo_else_nowhere() -> None:
    assert link("ab", 1.0, Stack("http://x")) == ""
    assert link("ab", 1.0, Stack("http://x", tempo="http://t")) == "http://t/api/traces/ab"
    found = link("ab", 1000.0, Stack("http://x", tempo="http://t", grafana="http://g"))
    assert found.startswith("http://g/explore?schemaVersion=1")
    assert "%22uid%22%3A%22tempo%22" in found


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-6, 1e9))
def test_an_axis_covers_its_values_with_few_round_ticks(low: float, span: float) -> None:
    axis = charts.linear(low, low + span)
    assert axis.high >= low + span - 1e-6 * span
    assert 2 <= len(axis.ticks) <= charts.MOST_TICKS + 2


@pytest.mark.parametrize(
    ("high", "last"),
    [(0.9, "1.0"), (0.011, "0.0125"), (60, "60"), (7.4, "8"), (12.4, "12.5"), (1800, "2,000")],
)
def test_ticks_are_written_as_short_as_they_can_be(high: float, last: str) -> None:
    assert charts.linear(0, high).ticks[-1][1] == last


@pytest.mark.parametrize("seconds", [0.4, 10, 59.8, 600, 7200])
def test_the_time_axis_ends_with_the_run(seconds: float) -> None:
    axis = charts.seconds(seconds)
    assert axis.high - 1 <= max(seconds, 1) <= axis.high + 0.06
    assert all(at <= axis.high * 1.001 for at, _ in axis.ticks)


def test_a_gap_is_not_drawn_over() -> None:
    axis = charts.seconds(10)
    drawn = charts.chart(
        "t",
        "ms",
        [charts.Line("a", "c1", [(0, 1), (1, 2), (2, None), (3, 4), (4, 5), (6, None), (7, 1)])],
        axis,
    )
    assert drawn.count('class="line"') == 2
    assert drawn.count("<circle") == 1
    assert "nothing was measured" in charts.chart("t", "ms", [charts.Line("a", "c1", [(0, None)])], axis)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.0, "100 %"),
        (0.005, "0 %"),
        (-0.001, "\N{MINUS SIGN}1 %"),
        (-50, "< \N{MINUS SIGN}999 %"),
        (None, "\N{EN DASH}"),
    ],
)
def test_a_margin_is_never_rounded_in_favour_of_the_target(value: float | None, said: str) -> None:
    assert words.margin(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [(0.844, "0.84"), (12.34, "12.3"), (1204.4, "1,204"), (float("nan"), "\N{EN DASH}")]
)
def test_milliseconds_have_three_digits_or_are_whole(value: float, said: str) -> None:
    assert words.milliseconds(value) == said
