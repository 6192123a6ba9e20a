"""The collector and its backends as configured: no line is lost, each has its labels and its trace."""

import json
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from compose.binaries import ProgramUnavailable, locate
from compose.native import Stack
from tests.live import eventually

PROGRAMS = ("loki", "tempo", "otelcol", "prometheus", "alertmanager")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The backends alone, without the service."""
    for name in PROGRAMS:
        try:
            locate(name)
        except ProgramUnavailable as error:
            pytest.skip(str(error))
    with Stack(tmp_path_factory.mktemp("back ends"), only=PROGRAMS) as stack:
        yield stack


@pytest.fixture
def file(stack: Stack, request: pytest.FixtureRequest) -> Path:
    """A log file of a service of its own, named after the test."""
    return stack.paths.logs / "service" / f"{abs(hash(request.node.name))}.jsonl"


def record(number: int, service: str, **more: object) -> str:
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    line = {
        "timestamp": moment,
        "level": "warning",
        "event": f"event.{number}",
        "service": service,
        "env": "test",
    }
    return (
        json.dumps({**line, "logger": "tests", "instance": "here:1", "secret": "stays in the body", **more})
        + "\n"
    )


def streams(stack: Stack, query: str) -> list[dict[str, Any]]:
    parameters = {"query": query, "since": "1h", "limit": "5000"}
    answer = httpx.get(f"{stack.endpoints()['loki']}/loki/api/v1/query_range", params=parameters)
    answer.raise_for_status()
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


def lines(stack: Stack, query: str) -> list[str]:
    return [line for stream in streams(stack, query) for _, line in stream["values"]]


def test_a_line_arrives_with_its_labels_its_trace_and_its_body_untouched(stack: Stack, file: Path) -> None:
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    line = record(1, "yardstick-one", traceId=trace_id, spanId=span_id, requestId="r-1", ip="10.0.0.1")
    file.write_text(line)
    query = f'{{service_name="yardstick-one"}} | trace_id="{trace_id}"'
    (found,) = eventually(lambda: streams(stack, query), what="the line in Loki")
    stream = found["stream"]
    assert {name: stream[name] for name in ("service_namespace", "deployment_environment_name")} == {
        "service_namespace": "yardstick",
        "deployment_environment_name": "test",
    }
    assert (stream["span_id"], stream["severity_text"], stream["event"]) == (span_id, "warning", "event.1")
    assert stream["requestId"] == "r-1"
    assert not {"ip", "secret", "instance", "level"} & set(stream), (
        "only what is searched for stands beside a line"
    )
    ((nanoseconds, body),) = found["values"]
    assert body == line.rstrip("\n")
    written = datetime.fromisoformat(json.loads(line)["timestamp"])
    assert int(nanoseconds) // 1000 == round(written.timestamp() * 1_000_000)


@pytest.mark.parametrize(
    "line", ["Traceback (most recent call last):", '{"broken', "[1]", '{"timestamp": 3}']
)
def test_a_line_that_is_no_record_arrives_as_it_is(stack: Stack, file: Path, line: str) -> None:
    file.write_text(line + "\n")
    query = f'{{service_name="yardstick-{file.stem}", service_namespace="yardstick"}}'
    assert eventually(lambda: lines(stack, query), what="the line in Loki") == [line]


def test_lines_written_while_loki_is_dead_arrive_once_it_is_back(stack: Stack, file: Path) -> None:
    file.write_text(record(0, "yardstick-two"))
    eventually(lambda: lines(stack, '{service_name="yardstick-two"}'))
    stack.kill("loki")
    with file.open("a") as out:
        out.writelines(record(number, "yardstick-two") for number in range(1, 2000))
    time.sleep(2)
    stack.kill("otelcol")
    stack.start("otelcol")
    stack.start("loki")
    expected = {f"event.{number}" for number in range(2000)}

    def events() -> set[str]:
        return {json.loads(line)["event"] for line in lines(stack, '{service_name="yardstick-two"}')}

    eventually(lambda: events() == expected, what="each of 2,000 lines")


def test_lines_rotated_away_while_the_collector_was_down_are_read_to_the_end(
    stack: Stack, file: Path
) -> None:
    file.write_text("".join(record(number, "yardstick-three") for number in range(100)))
    eventually(lambda: len(lines(stack, '{service_name="yardstick-three"}')) >= 100)
    stack.stop("otelcol")
    with file.open("a") as out:
        out.writelines(record(number, "yardstick-three") for number in range(100, 200))
    file.rename(file.with_name(file.name + ".1"))
    file.write_text("".join(record(number, "yardstick-three") for number in range(200, 300)))
    stack.start("otelcol")
    eventually(lambda: len(lines(stack, '{service_name="yardstick-three"}')) >= 300)
    events = [json.loads(line)["event"] for line in lines(stack, '{service_name="yardstick-three"}')]
    assert sorted(events) == sorted(f"event.{number}" for number in range(300))


def push(stack: Stack, trace_id: str) -> None:
    now = time.time_ns()
    names = ("name", "kind", "spanId", "parentSpanId")

    def resource(service: str, *spans: tuple[str, int, str, str]) -> dict[str, Any]:
        values = [dict(zip(names, span, strict=True)) for span in spans]
        times = {"traceId": trace_id, "startTimeUnixNano": str(now - 50_000_000), "endTimeUnixNano": str(now)}
        attributes = [{"key": "service.name", "value": {"stringValue": service}}]
        return {
            "resource": {"attributes": attributes},
            "scopeSpans": [{"spans": [v | times for v in values]}],
        }

    server, publish, process = (secrets.token_hex(8) for _ in range(3))
    body = {
        "resourceSpans": [
            resource("front", ("POST /x", 2, server, ""), ("publish x", 4, publish, server)),
            resource("back", ("process x", 5, process, publish)),
        ]
    }
    httpx.post(f"{stack.endpoints()['otelcol-http']}/v1/traces", json=body).raise_for_status()


def test_a_trace_is_found_and_becomes_metrics_a_graph_and_an_exemplar(stack: Stack) -> None:
    trace_id = secrets.token_hex(16)
    push(stack, trace_id)
    addresses = stack.endpoints()

    def spans() -> int:
        answer = httpx.get(f"{addresses['tempo']}/api/v2/traces/{trace_id}")
        return answer.text.count('"spanId"') if answer.status_code == 200 else 0

    eventually(lambda: spans() == 3, what="three spans in Tempo")

    def metric(query: str) -> list[Any]:
        answer = httpx.get(f"{addresses['prometheus']}/api/v1/query", params={"query": query}).json()
        result: list[Any] = answer["data"]["result"]
        return result

    eventually(lambda: metric('traces_spanmetrics_calls_total{service="back",span_name="process x"}'))
    eventually(lambda: metric('traces_service_graph_request_total{client="front",server="back"}'))

    def exemplars() -> str:
        begin, end = str(time.time() - 600), str(time.time() + 60)
        asked = {"query": "traces_spanmetrics_latency_bucket", "start": begin, "end": end}
        return httpx.get(f"{addresses['prometheus']}/api/v1/query_exemplars", params=asked).text

    # A counter is made good by the next collection, an exemplar is sent once: what Tempo's generator collects
    # in its first seconds has none where the reader of its log comes too early. In life more traces follow.
    pushed = [trace_id]

    def found() -> bool:
        pushed.append(secrets.token_hex(16))
        push(stack, pushed[-1])
        text = exemplars()
        return any(one in text for one in pushed)

    eventually(found, every=5, what="an exemplar of one of the traces")


def test_a_trace_that_came_while_tempo_was_dead_is_there_afterwards(stack: Stack) -> None:
    stack.kill("tempo")
    trace_id = secrets.token_hex(16)
    push(stack, trace_id)
    time.sleep(6)  # past the collector's decision, into its queue
    stack.kill("otelcol")
    stack.start("otelcol")
    stack.start("tempo")
    url = f"{stack.endpoints()['tempo']}/api/v2/traces/{trace_id}"
    eventually(lambda: httpx.get(url).status_code == 200, what="the trace in Tempo")


def test_every_backend_is_scraped_and_the_rules_of_both_are_loaded(stack: Stack) -> None:
    addresses = stack.endpoints()

    def health() -> dict[str, str]:
        targets = httpx.get(f"{addresses['prometheus']}/api/v1/targets").json()["data"]["activeTargets"]
        return {target["labels"]["job"]: target["health"] for target in targets}

    eventually(lambda: health() == dict.fromkeys(PROGRAMS, "up"), what="all targets up and no other")
    managers = httpx.get(f"{addresses['prometheus']}/api/v1/alertmanagers").json()["data"][
        "activeAlertmanagers"
    ]
    assert [manager["url"] for manager in managers] == [f"{addresses['alertmanager']}/api/v2/alerts"]

    def groups(address: str) -> list[Any]:
        found: list[Any] = httpx.get(f"{address}/api/v1/rules").json()["data"]["groups"]
        return found

    eventually(lambda: groups(addresses["prometheus"]), what="rules in Prometheus")
    eventually(lambda: groups(f"{addresses['loki']}/prometheus"), what="rules in Loki's ruler")
    names = f"{addresses['prometheus']}/api/v1/label/__name__/values"
    eventually(lambda: "system_memory_usage_bytes" in httpx.get(names).text, what="host metrics")


def test_everything_listens_on_the_loopback_address_alone(stack: Stack) -> None:
    for name in PROGRAMS:
        for connection in psutil.Process(stack.pid(name)).net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr[:1] == ("127.0.0.1",), f"{name} listens on {connection.laddr}"
