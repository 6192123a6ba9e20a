"""A client for the live stack: what a person would ask its APIs, as short calls that wait for the answer."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import pytest

T = TypeVar("T")


def eventually(
    question: Callable[[], T | None], *, within: float = 60.0, every: float = 0.5, what: str = ""
) -> T:
    """Ask until the answer is truthy and return it; an AssertionError with the last answer otherwise."""
    deadline = time.monotonic() + within
    while True:
        last: object
        try:
            answer = question()
            if answer:
                return answer
            last = answer
        except (httpx.HTTPError, KeyError, IndexError) as error:
            last = repr(error)
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within:g} s: {what or question}; last answer: {last!r}")
        time.sleep(every)


@dataclass(frozen=True)
class Span:
    """One span as Tempo returns it; IDs in Tempo's own encoding, comparable with each other only."""

    service: str
    name: str
    kind: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Live:
    """A stack and an HTTP client.

    Args:
        urls: the content of the stack's endpoints.json.
        missing: why a component is not there, by name.
    """

    urls: dict[str, str]
    http: httpx.Client
    missing: dict[str, str] = field(default_factory=dict)

    def need(self, *names: str) -> None:
        """Skip the test, with the reason, when one of these programs cannot be had on this machine."""
        for name in names:
            if name in self.missing:
                pytest.skip(f"no {name} on this machine: {self.missing[name]}")

    def url(self, name: str) -> str:
        """Where a component answers, which the test needs."""
        self.need(name)
        return self.urls[name]

    # -- the service -----------------------------------------------------------------------------------

    def create_transaction(self, **headers: str) -> tuple[dict[str, Any], str]:
        """Create a transaction; the answered data and the trace ID (hex) of the request."""
        body = {"amount": "12.50", "currency": "EUR", "reference": f"test-{uuid.uuid4()}"}
        answer = self.http.post(f"{self.url('api')}/v1/transactions", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        return answer.json()["data"], answer.headers["traceresponse"].split("-")[1]

    def transaction(self, transaction_id: str) -> dict[str, Any]:
        answer = self.http.get(f"{self.url('api')}/v1/transactions/{transaction_id}")
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def settled(self, transaction_id: str, *, within: float = 30.0) -> dict[str, Any]:
        def ask() -> dict[str, Any] | None:
            data = self.transaction(transaction_id)
            return data if data["status"] == "settled" else None

        return eventually(ask, within=within, every=0.1, what=f"{transaction_id} settled")

    # -- the signals -----------------------------------------------------------------------------------

    def trace(self, trace_id: str) -> list[Span]:
        """Every span of a trace that Tempo has by now; empty when it has none."""
        answer = self.http.get(f"{self.url('tempo')}/api/v2/traces/{trace_id}")
        if answer.status_code == 404:
            return []
        answer.raise_for_status()
        body = answer.json()
        return [
            Span(
                service=_attributes(resource["resource"]["attributes"])["service.name"],
                name=raw["name"],
                kind=raw["kind"].removeprefix("SPAN_KIND_"),
                span_id=raw["spanId"],
                parent_id=raw.get("parentSpanId", ""),
                attributes=_attributes(raw.get("attributes", [])),
            )
            for resource in (body.get("trace") or {}).get("resourceSpans", [])
            for scope in resource["scopeSpans"]
            for raw in scope["spans"]
        ]

    def logs(self, query: str, *, since: float = 900.0, limit: int = 5000) -> list[str]:
        """Log lines of the last `since` seconds that a LogQL query selects, oldest first."""
        now = time.time()
        answer = self.http.get(
            f"{self.url('loki')}/loki/api/v1/query_range",
            params={
                "query": query,
                "start": int((now - since) * 1e9),
                "end": int((now + 5) * 1e9),
                "limit": limit,
                "direction": "forward",
            },
        )
        answer.raise_for_status()
        rows = [tuple(value[:2]) for stream in answer.json()["data"]["result"] for value in stream["values"]]
        return [line for _, line in sorted(rows)]

    def metric(self, query: str) -> float:
        """The sum of an instant query's samples; 0 when it has none."""
        answer = self.http.get(f"{self.url('prometheus')}/api/v1/query", params={"query": query})
        answer.raise_for_status()
        return sum(float(sample["value"][1]) for sample in answer.json()["data"]["result"])

    def exemplar_traces(self, query: str, *, since: float = 900.0) -> set[str]:
        now = time.time()
        answer = self.http.get(
            f"{self.url('prometheus')}/api/v1/query_exemplars",
            params={"query": query, "start": now - since, "end": now + 5},
        )
        answer.raise_for_status()
        return {
            exemplar["labels"]["trace_id"]
            for series in answer.json()["data"]
            for exemplar in series["exemplars"]
        }


def _attributes(raw: list[dict[str, Any]]) -> dict[str, Any]:
    return {item["key"]: next(iter(item["value"].values()), None) for item in raw}
