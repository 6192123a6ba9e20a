"""Run every query of every panel against a live stack.

    python -m dashboards.run --prometheus URL --loki URL --tempo URL

Prints a line for each query with the rows it returned; exit code 1 when one failed or returned nothing.
"""

import argparse
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from dashboards.kit import LOKI, PROMETHEUS, TEMPO
from dashboards.queries import PanelQuery, read_queries

SHOWN_SECONDS = 15 * 60
STEP_SECONDS = 15


@dataclass(frozen=True)
class QueryResult:
    """`rows` counts series that hold a number, log lines, or traces; `error` is empty when there was none."""

    query: PanelQuery
    rows: int
    error: str

    def __str__(self) -> str:
        return f"{self.query.panel}: {self.error or f'{self.rows} rows'}: {self.query.text}"


def run_queries(endpoints: Mapping[str, str]) -> list[QueryResult]:
    """Ask every panel's query, over the last 15 minutes; `endpoints` gives the URLs by data source."""
    with httpx.Client(timeout=30) as http:
        return [_run(http, endpoints, query) for query in read_queries()]


def _run(http: httpx.Client, endpoints: Mapping[str, str], query: PanelQuery) -> QueryResult:
    url = endpoints.get(query.datasource)
    if url is None:
        return QueryResult(query, 0, f"no address of {query.datasource} was given")
    ask = {PROMETHEUS: _prometheus, LOKI: _loki, TEMPO: _tempo}[query.datasource]
    try:
        return QueryResult(query, ask(http, url, query), "")
    except httpx.HTTPStatusError as error:
        return QueryResult(query, 0, f"{error.response.status_code}: {error.response.text.strip()}")
    except (httpx.HTTPError, ValueError, KeyError) as error:
        return QueryResult(query, 0, f"{type(error).__name__}: {error}")


def _prometheus(http: httpx.Client, url: str, query: PanelQuery) -> int:
    now = time.time()
    if query.instant:
        found = _get(http, f"{url}/api/v1/query", query=query.text, time=now)["data"]["result"]
        return sum(1 for series in found if _is_number(series["value"]))
    window = {"start": now - SHOWN_SECONDS, "end": now, "step": STEP_SECONDS}
    found = _get(http, f"{url}/api/v1/query_range", query=query.text, **window)["data"]["result"]
    return sum(1 for series in found if any(map(_is_number, series["values"])))


def _loki(http: httpx.Client, url: str, query: PanelQuery) -> int:
    now = time.time_ns()
    data = _get(
        http,
        f"{url}/loki/api/v1/query_range",
        query=query.text,
        start=now - SHOWN_SECONDS * 10**9,
        end=now,
        step=f"{STEP_SECONDS}s",
        limit=query.limit,
    )["data"]
    if data["resultType"] == "streams":
        return sum(len(stream["values"]) for stream in data["result"])
    return sum(1 for series in data["result"] if any(map(_is_number, series["values"])))


def _tempo(http: httpx.Client, url: str, query: PanelQuery) -> int:
    now = int(time.time())
    found = _get(
        http, f"{url}/api/search", q=query.text, start=now - SHOWN_SECONDS, end=now, limit=query.limit
    )
    return len(found.get("traces") or [])


def _get(http: httpx.Client, url: str, **parameters: str | float) -> dict[str, Any]:
    answer = http.get(url, params=parameters)
    answer.raise_for_status()
    body: dict[str, Any] = answer.json()
    return body


def _is_number(sample: list[Any]) -> bool:
    """Whether a sample (time, value as text) is more than the share of nothing."""
    return not math.isnan(float(sample[1]))


def main(argv: list[str] | None = None) -> int:
    """Exit code 0 when every query returned rows, 1 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m dashboards.run", description="Run every panel's queries."
    )
    for name in (PROMETHEUS, LOKI, TEMPO):
        parser.add_argument(f"--{name}", required=True, metavar="URL")
    results = run_queries(vars(parser.parse_args(argv)))
    for result in results:
        query = result.query
        print(f"{result.rows:6}  {query.datasource:10}  {query.dashboard}: {query.panel}")
        if result.error or not result.rows:
            print(f"{'':20}{result.error or 'no data'}: {query.text}")
    return 1 if any(result.error or not result.rows for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
