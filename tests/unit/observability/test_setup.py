"""Starting and closing: settings that cannot be, the README's three lines, metrics, the loop monitor."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from opentelemetry import trace
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from observability import EventLoopMonitor, Telemetry, TelemetryConfig, TelemetryMiddleware
from tests.unit.observability.harness import Answer, Harness

Call = Callable[..., Awaitable[Answer]]
README = Path(__file__).parents[3] / "observability" / "README.md"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"log_level": "loud"}, "no log level 'loud'"),
        ({"sample_ratio": 1.5}, "between 0 and 1"),
        ({"sample_ratio": -0.1}, "between 0 and 1"),
        ({"log_sink": "file"}, "log_file is not set"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TelemetryConfig("x", **settings)


def test_a_log_file_that_cannot_be_opened_is_an_error_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Telemetry.start(TelemetryConfig("x", log_sink="file", log_file=tmp_path / "file" / "app.jsonl"))


async def test_the_instance_defaults_to_host_and_process(start: Callable[..., Harness]) -> None:
    harness = start(instance=None)
    harness.telemetry.pipeline.emit(20, "x", "y", {})
    assert re.fullmatch(r".+:\d+", harness.lines()[0]["instance"])


async def test_each_telemetry_has_metrics_of_its_own(start: Callable[..., Harness]) -> None:
    first, second = start(), start()
    first.telemetry.metrics.counter("orders", "Orders.", ("status",)).labels("ok").inc()
    assert first.sample("shop_orders_total", status="ok") == 1
    assert second.sample("shop_orders_total", status="ok") is None


async def test_the_global_tracer_is_a_real_one(harness: Harness) -> None:
    assert not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


async def test_process_and_gc_metrics_are_there_and_everything_parses(harness: Harness, call: Call) -> None:
    await call(TelemetryMiddleware(PlainTextResponse("x"), harness.telemetry))
    names = {
        family.name for family in text_string_to_metric_families("\n".join(harness.metrics(accept="")) + "\n")
    }
    assert {
        "process_cpu_seconds",
        "process_resident_memory_bytes",
        "python_gc_collections",
        "http_server_request_duration_seconds",
        "http_server_active_requests",
        "telemetry_spans_exported",
        "telemetry_spans_dropped",
        "telemetry_log_lines_lost",
    } <= names


async def test_the_buckets_hold_the_objectives_threshold(harness: Harness, call: Call) -> None:
    await call(TelemetryMiddleware(PlainTextResponse("x"), harness.telemetry))
    text = "\n".join(harness.metrics("http_server_request_duration_seconds_bucket"))
    bounds = re.findall(r'le="([^"]+)"', text)
    assert bounds == [
        "0.005",
        "0.01",
        "0.025",
        "0.05",
        "0.1",
        "0.25",
        "0.5",
        "1.0",
        "2.5",
        "5.0",
        "10.0",
        "+Inf",
    ]


async def test_routes_without_end_share_a_series(harness: Harness) -> None:
    http = harness.telemetry.metrics.http
    for number in range(700):
        http.child("GET", f"/r{number}", 200).observe(0.1)
    assert len(harness.metrics("http_server_request_duration_seconds_count")) == 501
    assert (
        harness.sample(
            "http_server_request_duration_seconds_count",
            http_request_method="GET",
            http_route="/{other}",
            http_response_status_code="200",
        )
        == 200
    )


def adopt(app: Any, log_file: Path) -> TelemetryMiddleware:
    """Run the first Python block of the README as it stands, on `app`."""
    block = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert block is not None
    lines = [line for line in block[1].splitlines() if line.strip()]
    assert len(lines) == 3
    # Only the destination differs: no collector here, and lines that the test can read.
    code = "\n".join(lines).replace(
        'otlp_endpoint="http://127.0.0.1:4317"', f'log_sink="file", log_file=Path({str(log_file)!r})'
    )
    names: dict[str, Any] = {"app": app, "Path": Path}
    exec(code, names)  # noqa: S102 - the README's own code
    assert isinstance(names["app"], TelemetryMiddleware)
    return names["app"]


async def bare(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"bare"})


@pytest.mark.parametrize(
    ("app", "path", "route"),
    [
        (Starlette(routes=[Route("/items/{item}", PlainTextResponse("x"))]), "/items/1", "/items/{item}"),
        (bare, "/anything", "/{unmatched}"),
    ],
    ids=["starlette", "bare"],
)
async def test_three_lines_are_enough(call: Call, tmp_path: Path, app: Any, path: str, route: str) -> None:
    log_file = tmp_path / "orders.jsonl"
    adopted = adopt(app, log_file)
    try:
        answer = await call(adopted, path)
        assert answer.status == 200
        assert answer.header("x-request-id")
        scraped = await call(
            adopted, "/metrics", headers=[("accept", "application/openmetrics-text; version=1.0.0")]
        )
        text = scraped.body.decode()
        assert scraped.header("content-type").startswith("application/openmetrics-text")
        assert f'http_route="{route}"' in text
        assert f'trace_id="{answer.header("traceresponse").split("-")[1]}"' in text
        (line,) = [orjson.loads(raw) for raw in log_file.read_bytes().splitlines()]
        assert (line["event"], line["service"], line["action"]) == ("http.request", "orders", f"GET {route}")
    finally:
        await lifespan(adopted)
    assert adopted.telemetry.pipeline.closed


async def lifespan(app: Any) -> None:
    phases = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return next(phases)

    async def send(event: Any) -> None:
        sent.append(event["type"])

    await app({"type": "lifespan", "state": {}}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_a_blocked_loop_shows_as_lag(harness: Harness) -> None:
    monitor = EventLoopMonitor(harness.telemetry, interval=0.01)
    monitor.start()
    monitor.start()

    async def measured(times: float) -> None:
        while (harness.sample("shop_event_loop_lag_seconds_count") or 0) < times:  # noqa: ASYNC110 - as scraped
            await asyncio.sleep(0.005)

    await measured(1)
    before = harness.sample("shop_event_loop_lag_seconds_count") or 0
    time.sleep(0.3)  # noqa: ASYNC251 - blocking the loop is what is tested
    await measured(before + 1)
    await monitor.stop()
    await monitor.stop()
    total = harness.sample("shop_event_loop_lag_seconds_count")
    quick = harness.sample("shop_event_loop_lag_seconds_bucket", le="0.1")
    assert total is not None
    assert quick is not None
    assert total > quick


async def test_a_disabled_monitor_does_nothing(start: Callable[..., Harness]) -> None:
    harness = start(enabled=False)
    monitor = EventLoopMonitor(harness.telemetry, interval=0.001)
    monitor.start()
    await asyncio.sleep(0.02)
    await monitor.stop()
    assert harness.sample("shop_event_loop_lag_seconds_count") == 0


def test_observability_knows_nothing_of_the_service() -> None:
    for path in README.parent.glob("*.py"):
        text = path.read_text()
        assert not re.search(
            r"\b(service|loadtest|compose|alerts|dashboards)\.\w+ import|^import service", text, re.MULTILINE
        ), path
        assert "yardstick" not in text.lower(), path
        assert "transactions" not in text.lower(), path
