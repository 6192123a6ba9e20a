"""Reading the queries and running them: rows are counted, and what a backend refuses is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from dashboards import run
from dashboards.queries import PanelQuery, read_queries

ENDPOINTS = {"prometheus": "http://p", "loki": "http://l", "tempo": "http://t"}
Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], None]:
    """Put a function in the place of the network."""
    real = httpx.Client

    def use(answer: Answer) -> None:
        monkeypatch.setattr(
            "dashboards.run.httpx.Client", lambda **_: real(transport=httpx.MockTransport(answer))
        )

    return use


def matrix(*values: str) -> dict[str, Any]:
    series = [{"metric": {}, "value": [1, value], "values": [[0, "NaN"], [1, value]]} for value in values]
    return {"data": {"resultType": "matrix", "result": series}}


def test_no_macro_or_variable_is_left_in_a_query() -> None:
    queries = read_queries()
    assert {query.datasource for query in queries} == {"prometheus", "loki", "tempo"}
    assert [query.text for query in queries if "$" in query.text] == []


def test_macros_and_choices_are_filled_in(tmp_path: Path) -> None:
    target = {"datasource": {"uid": "prometheus"}, "expr": 'rate(a{b=~"$it",c="${it}"}[$__rate_interval])'}
    board = {
        "uid": "x",
        "templating": {"list": [{"name": "it", "allValue": ".+"}]},
        "panels": [{"type": "row", "panels": [{"type": "stat", "title": "T", "targets": [target]}]}],
    }
    (tmp_path / "x.json").write_text(json.dumps(board))
    assert read_queries(tmp_path) == [
        PanelQuery("x", "T", "prometheus", 'rate(a{b=~".+",c=".+"}[1m])', instant=False, limit=0)
    ]


def test_rows_are_series_lines_and_traces(answers: Callable[[Answer], None]) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "t":
            return httpx.Response(200, json={"traces": [{}, {}]})
        if request.url.host == "l" and "json" not in request.url.params["query"]:
            streams = [{"values": [["1", "a"], ["2", "b"], ["3", "c"]]}]
            return httpx.Response(200, json={"data": {"resultType": "streams", "result": streams}})
        return httpx.Response(200, json=matrix("0"))

    answers(answer)
    results = run.run_queries(ENDPOINTS)
    assert {(r.query.datasource, r.rows, r.error) for r in results} == {
        ("prometheus", 1, ""),
        ("loki", 1, ""),
        ("loki", 3, ""),
        ("tempo", 2, ""),
    }


@pytest.mark.parametrize("content", [matrix(), matrix("NaN")])
def test_nothing_and_the_share_of_nothing_are_no_rows(
    answers: Callable[[Answer], None], content: dict[str, Any]
) -> None:
    answers(lambda _: httpx.Response(200, json=content))
    assert {r.rows for r in run.run_queries(ENDPOINTS)} == {0}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: httpx.Response(400, text="parse error at char 5\n"), "400: parse error at char 5"),
        (lambda _: httpx.Response(200, text="<html>"), "JSONDecodeError"),
        (lambda _: httpx.Response(200, json={}), ""),
    ],
)
def test_a_refusal_or_an_answer_of_another_kind_fails_that_query_only(
    answers: Callable[[Answer], None], answer: Answer, said: str
) -> None:
    answers(answer)
    results = [r for r in run.run_queries(ENDPOINTS) if r.query.datasource != "tempo"]
    assert len(results) > 10
    assert all(said in r.error and r.error for r in results)


def test_an_unreachable_or_unknown_backend_is_an_error(answers: Callable[[Answer], None]) -> None:
    def refuse(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    answers(refuse)
    results = run.run_queries({"prometheus": "http://p"})
    assert {r.error for r in results} == {
        "ConnectError: refused",
        "no address of loki was given",
        "no address of tempo was given",
    }


@pytest.mark.parametrize(
    ("content", "code"), [(matrix("1") | {"traces": [{}]}, 0), (matrix() | {"traces": []}, 1)]
)
def test_the_exit_code_tells_whether_all_returned_rows(
    answers: Callable[[Answer], None], capsys: pytest.CaptureFixture[str], content: dict[str, Any], code: int
) -> None:
    answers(lambda _: httpx.Response(200, json=content))
    assert run.main(["--prometheus", "http://p", "--loki", "http://l", "--tempo", "http://t"]) == code
    assert "yardstick" in capsys.readouterr().out
