"""One request from every side: its trace in Tempo, its lines in Loki, its exemplar in Prometheus."""

import json
from itertools import pairwise

import pytest

from tests.live import Live, Span, eventually

pytestmark = pytest.mark.stack

JOB = "transaction.settlement.v1"
# child -> parent, as (service, span kind, span name); what a request becomes on its way to its effect
HOPS = [
    ("yardstick-api", "SERVER", "POST /v1/transactions"),
    ("yardstick-api", "INTERNAL", f"outbox {JOB}"),
    ("yardstick-worker", "PRODUCER", f"publish {JOB}"),
    ("yardstick-worker", "CONSUMER", f"process {JOB}"),
    ("yardstick-worker", "INTERNAL", "transaction.settle"),
]


@pytest.fixture(scope="module")
def paid(live: Live) -> tuple[dict[str, object], str]:
    """A transaction that was settled, and the trace ID of the request that made it."""
    created, trace_id = live.create_transaction()
    return live.settled(created["id"]), trace_id


def find(spans: list[Span], hop: tuple[str, str, str]) -> Span | None:
    return next((span for span in spans if (span.service, span.kind, span.name) == hop), None)


def test_the_trace_leads_from_the_request_to_its_effect(
    live: Live, paid: tuple[dict[str, object], str]
) -> None:
    _, trace_id = paid
    spans = eventually(
        lambda: (found := live.trace(trace_id)) and all(find(found, hop) for hop in HOPS) and found,
        within=90,
        what=f"five hops of {trace_id} in Tempo",
    )
    assert isinstance(spans, list)
    chain = [span for hop in HOPS if (span := find(spans, hop))]
    for parent, child in pairwise(chain):
        assert child.parent_id == parent.span_id, f"{child.name} is not below {parent.name}"
    effect = chain[-1]
    below = [span for span in spans if span.parent_id == effect.span_id and span.kind == "CLIENT"]
    assert below, "the effect has no database span"
    assert {span.attributes.get("db.system.name") for span in below} == {"postgresql"}


def test_the_log_lines_carry_the_trace(live: Live, paid: tuple[dict[str, object], str]) -> None:
    _, trace_id = paid

    def events(service: str) -> set[str]:
        lines = live.logs(f'{{service_name="{service}"}} | trace_id="{trace_id}"')
        return {json.loads(line)["event"] for line in lines}

    eventually(lambda: {"http.request", "transaction.created"} <= events("yardstick-api"), what="API lines")
    eventually(lambda: {"transaction.settled", "job.done"} <= events("yardstick-worker"), what="worker lines")
    lines = [
        json.loads(line) for line in live.logs(f'{{service_name="yardstick-api"}} | trace_id="{trace_id}"')
    ]
    access = next(line for line in lines if line["event"] == "http.request")
    assert access["traceId"] == trace_id
    assert access["action"] == "POST /v1/transactions"
    assert access["status"] == 201
    assert access["duration"] > 0


def test_the_request_is_counted_with_its_exemplar(live: Live) -> None:
    count = (
        'http_server_request_duration_seconds_count{job="yardstick-api",http_request_method="POST",'
        'http_route="/v1/transactions",http_response_status_code="201"}'
    )
    before = live.metric(count)
    traces = {live.create_transaction()[1] for _ in range(5)}
    eventually(lambda: live.metric(count) >= before + 5, what="five more requests in Prometheus")
    bucket = 'http_server_request_duration_seconds_bucket{job="yardstick-api",http_route="/v1/transactions"}'
    eventually(lambda: traces & live.exemplar_traces(bucket), what="an exemplar of one of the five requests")


def test_the_jobs_are_counted_with_their_exemplar(live: Live, paid: tuple[dict[str, object], str]) -> None:
    done = f'yardstick_jobs_done_total{{job_name="{JOB}"}}'
    eventually(lambda: live.metric(done) >= 1, what="a job done")
    eventually(
        lambda: live.exemplar_traces("yardstick_jobs_freshness_seconds_bucket"), what="a job's exemplar"
    )


def test_span_metrics_and_service_graph_are_made(live: Live, paid: tuple[dict[str, object], str]) -> None:
    live.need("tempo")
    eventually(lambda: live.metric('traces_spanmetrics_calls_total{service="yardstick-api"}') > 0, within=120)
    eventually(lambda: live.metric("traces_service_graph_request_total") > 0, within=120)
