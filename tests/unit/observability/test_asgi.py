"""One pass over a request: what span, histogram, access line and headers say, and that they agree."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, WebSocket
from fastapi.telemetry import TelemetryConfig
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Mount, Route

from observability import TelemetryMiddleware, bind, current, get_logger
from tests.unit.observability.harness import Answer, Harness

Call = Callable[..., Awaitable[Answer]]
QUIET: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
log = get_logger("tests.app")


class BoomError(Exception):
    pass


def fastapi_app() -> FastAPI:
    app = FastAPI(telemetry=QUIET)
    inner = APIRouter(prefix="/v1")
    outer = APIRouter(prefix="/api")
    mounted = FastAPI(telemetry=QUIET)

    @inner.get("/items/{item_id}")
    async def item(item_id: str) -> dict[str, str]:
        log.info("item.read", item=item_id)
        return {"id": item_id}

    @app.get("/boom")
    async def boom() -> None:
        raise BoomError("connect to postgresql://app:hunter2@db/x failed")

    @app.get("/gone")
    async def gone() -> None:
        raise HTTPException(404, "no such item")

    @app.get("/sync")
    def sync() -> dict[str, str]:
        bind(user_id="u-thread", role="clerk")
        return {}

    @app.get("/later")
    async def later(tasks: BackgroundTasks) -> dict[str, str]:
        async def task() -> None:
            await asyncio.sleep(0)
            raise BoomError("in the background")

        tasks.add_task(task)
        return {}

    @mounted.get("/things/{thing}")
    async def thing(thing: str) -> dict[str, str]:
        return {"thing": thing}

    outer.include_router(inner)
    app.include_router(outer)
    app.mount("/tenants/{tenant}", mounted)
    return app


def counted(harness: Harness, method: str, route: str, status: int) -> float | None:
    return harness.sample(
        "http_server_request_duration_seconds_count",
        http_request_method=method,
        http_route=route,
        http_response_status_code=str(status),
    )


@pytest.mark.parametrize(
    ("path", "method", "status", "route"),
    [
        ("/api/v1/items/7", "GET", 200, "/api/v1/items/{item_id}"),
        ("/api/v1/items/7", "POST", 405, "/api/v1/items/{item_id}"),
        ("/tenants/acme/things/3", "GET", 200, "/tenants/{tenant}/things/{thing}"),
        ("/tenants/acme/nothing/3", "GET", 404, "/{unmatched}"),
        ("/wp-login.php", "GET", 404, "/{unmatched}"),
        ("/gone", "GET", 404, "/gone"),
    ],
)
async def test_the_route_template_is_counted_never_the_path(  # noqa: PLR0917 - fixtures and the table's columns
    harness: Harness, call: Call, path: str, method: str, status: int, route: str
) -> None:
    answer = await call(TelemetryMiddleware(fastapi_app(), harness.telemetry), path, method)
    assert answer.status == status
    assert counted(harness, method, route, status) == 1
    assert harness.line("http.request")["action"] == f"{method} {route}"
    span = harness.spans()[-1]
    assert span.name == (method if route == "/{unmatched}" else f"{method} {route}")
    assert (span.attributes or {}).get("http.route") == (None if route == "/{unmatched}" else route)


@pytest.mark.parametrize(
    ("path", "status", "route"),
    [
        ("/a/1", 200, "/a/{b}"),
        ("/m/a/1", 200, "/m/a/{b}"),
        ("/m/n/a/1", 200, "/m/n/a/{b}"),
        ("/m/other", 404, "/{unmatched}"),
        ("/opaque/x/y", 200, "/opaque/{path}"),
    ],
)
async def test_starlette_mounts_are_part_of_the_template(
    harness: Harness, call: Call, path: str, status: int, route: str
) -> None:
    async def plain(_request: Request) -> PlainTextResponse:
        return PlainTextResponse("x")

    leaf = [Route("/a/{b}", plain)]
    app = Starlette(
        routes=[
            *leaf,
            Mount("/m", routes=[*leaf, Mount("/n", routes=leaf)]),
            Mount("/opaque", PlainTextResponse("x")),
        ]
    )
    assert (await call(TelemetryMiddleware(app, harness.telemetry), path)).status == status
    assert counted(harness, "GET", route, status) == 1


async def test_one_request_gives_three_signals_that_agree(harness: Harness, call: Call) -> None:
    app = TelemetryMiddleware(fastapi_app(), harness.telemetry)
    answer = await call(app, "/api/v1/items/7", headers=[("User-Agent", "test/1"), ("X-Request-ID", "req-1")])
    span, line = harness.span("GET /api/v1/items/{item_id}"), harness.line("http.request")
    assert span.kind is SpanKind.SERVER
    assert span.context is not None
    assert span.parent is None
    trace_id = f"{span.context.trace_id:032x}"
    assert line["traceId"] == trace_id
    assert line["spanId"] == f"{span.context.span_id:016x}"
    assert harness.line("item.read")["traceId"] == trace_id
    assert span.end_time is not None
    assert span.start_time is not None
    assert line["duration"] == (span.end_time - span.start_time) / 1e6
    assert answer.header("traceresponse") == f"00-{trace_id}-{line['spanId']}-{span.context.trace_flags:02x}"
    assert answer.header("x-request-id") == line["requestId"] == "req-1"
    (exemplar,) = [
        text for text in harness.metrics("http_server_request_duration_seconds_bucket") if trace_id in text
    ]
    assert f'span_id="{line["spanId"]}"' in exemplar
    assert span.attributes is not None
    assert dict(span.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.path": "/api/v1/items/7",
        "url.scheme": "http",
        "client.address": "203.0.113.7",
        "user_agent.original": "test/1",
        "http.route": "/api/v1/items/{item_id}",
    }


async def test_the_plain_exposition_has_no_exemplars(harness: Harness, call: Call) -> None:
    await call(TelemetryMiddleware(fastapi_app(), harness.telemetry), "/api/v1/items/7")
    assert not [line for line in harness.metrics(accept="text/plain") if "trace_id" in line]
    assert harness.telemetry.exposition("text/plain;version=0.0.4")[1].startswith("text/plain")
    assert harness.telemetry.exposition("application/openmetrics-text")[1].startswith(
        "application/openmetrics-text"
    )
    assert harness.metrics()[-1] == "# EOF"


async def test_the_callers_trace_is_continued(harness: Harness, call: Call) -> None:
    app = TelemetryMiddleware(fastapi_app(), harness.telemetry)
    answer = await call(
        app, "/sync", headers=[("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "vendor=opaque")]
    )
    span = harness.span("GET /sync")
    assert span.parent is not None
    assert span.context is not None
    assert f"{span.parent.span_id:016x}" == SPAN
    assert span.context.trace_state["vendor"] == "opaque"
    assert answer.header("traceresponse").startswith(f"00-{TRACE}-")


async def test_a_caller_that_does_not_sample_is_followed(harness: Harness, call: Call) -> None:
    app = TelemetryMiddleware(fastapi_app(), harness.telemetry)
    answer = await call(app, "/sync", headers=[("traceparent", f"00-{TRACE}-{SPAN}-00")])
    assert harness.spans() == []
    assert harness.line("http.request")["traceId"] == TRACE
    assert answer.header("traceresponse").endswith("-00")
    assert counted(harness, "GET", "/sync", 200) == 1
    assert not [line for line in harness.metrics() if "trace_id" in line]


@pytest.mark.parametrize(
    "value",
    [
        "",
        "garbage",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-extra",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}_-{SPAN}-01",
        f" 0-{TRACE}-{SPAN}-01",
        "00-" + "é" * 16 + f"-{SPAN}-01",
    ],
)
async def test_a_malformed_traceparent_starts_a_new_trace(harness: Harness, call: Call, value: str) -> None:
    answer = await call(
        TelemetryMiddleware(fastapi_app(), harness.telemetry), "/sync", headers=[("traceparent", value)]
    )
    assert answer.status == 200
    assert harness.span("GET /sync").parent is None


async def test_two_traceparents_are_worth_none(harness: Harness, call: Call) -> None:
    header = ("traceparent", f"00-{TRACE}-{SPAN}-01")
    await call(TelemetryMiddleware(fastapi_app(), harness.telemetry), "/sync", headers=[header, header])
    assert harness.span("GET /sync").parent is None


async def test_a_newer_traceparent_version_is_read_as_far_as_known(harness: Harness, call: Call) -> None:
    header = ("traceparent", f"01-{TRACE}-{SPAN}-01-future")
    await call(TelemetryMiddleware(fastapi_app(), harness.telemetry), "/sync", headers=[header])
    assert harness.span("GET /sync").parent is not None


@pytest.mark.parametrize(
    "hostile",
    [
        b"",
        b"x" * 129,
        b"a\nb",
        b"a\r\nset-cookie: x=1",
        b"caf\xc3\xa9",
        b"\xff\xfe",
        b'"}{',
        b"a b",
        b"<script>",
        b"\x00",
    ],
)
async def test_a_hostile_request_id_is_replaced(harness: Harness, call: Call, hostile: bytes) -> None:
    app = TelemetryMiddleware(fastapi_app(), harness.telemetry)
    answer = await call(app, "/sync", headers=[("X-Request-ID", hostile)])
    given = answer.header("x-request-id")
    assert len(given) == 32
    assert int(given, 16)
    assert harness.line("http.request")["requestId"] == given


async def test_an_unhandled_exception_is_counted_as_answered_and_raised_on(
    harness: Harness, call: Call
) -> None:
    answer = await call(TelemetryMiddleware(fastapi_app(), harness.telemetry), "/boom")
    assert isinstance(answer.error, BoomError)
    assert answer.status == 500
    assert answer.header("x-request-id")
    assert counted(harness, "GET", "/boom", 500) == 1
    span, line = harness.span("GET /boom"), harness.line("http.request")
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert str(span.attributes["error.type"]).endswith("BoomError")
    (event,) = span.events
    assert event.name == "exception"
    assert "hunter2" not in str(dict(event.attributes or {})) + str(span.status.description)
    assert line["level"] == "error"
    assert line["status"] == 500
    assert line["exception"][0]["frames"][-1]["function"].endswith("boom")
    assert b"hunter2" not in b"".join(harness.raw_lines())


async def test_inside_the_error_layer_an_exception_counts_as_500_too(harness: Harness, call: Call) -> None:
    app = fastapi_app()
    app.add_middleware(TelemetryMiddleware, telemetry=harness.telemetry)
    answer = await call(app, "/boom")
    assert (answer.status, counted(harness, "GET", "/boom", 500)) == (500, 1)
    assert isinstance(answer.error, BoomError)


async def test_an_answer_of_500_without_an_exception_marks_the_span(harness: Harness, call: Call) -> None:
    app = Starlette(routes=[Route("/x", PlainTextResponse("no", status_code=503))])
    await call(TelemetryMiddleware(app, harness.telemetry), "/x")
    span = harness.spans()[-1]
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "503"


async def test_lines_from_inside_the_endpoint_name_the_action(harness: Harness, call: Call) -> None:
    await call(TelemetryMiddleware(fastapi_app(), harness.telemetry), "/api/v1/items/7")
    assert harness.line("item.read")["action"] == "GET /api/v1/items/{item_id}"


async def test_a_fault_in_telemetry_is_not_the_clients(
    harness: Harness, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = TelemetryMiddleware(fastapi_app(), harness.telemetry)

    def broken(*_: object) -> None:
        raise RuntimeError("no series")

    monkeypatch.setattr(harness.telemetry.metrics.http, "child", broken)
    answer = await call(app, "/sync")
    assert (answer.status, answer.error) == (200, None)
    assert harness.line("telemetry.fault")["exception"][0]["value"] == "no series"


async def test_a_client_error_is_not_the_servers(harness: Harness, call: Call) -> None:
    await call(TelemetryMiddleware(fastapi_app(), harness.telemetry), "/gone")
    assert harness.span("GET /gone").status.status_code is StatusCode.UNSET
    assert harness.line("http.request")["level"] == "info"


async def test_a_failing_background_task_does_not_change_the_answer(harness: Harness, call: Call) -> None:
    answer = await call(TelemetryMiddleware(fastapi_app(), harness.telemetry), "/later")
    assert isinstance(answer.error, BoomError)
    assert counted(harness, "GET", "/later", 200) == 1
    assert harness.line("http.request")["status"] == 200
    assert len(harness.spans()) == 1


async def test_a_stream_is_recorded_at_its_last_chunk(harness: Harness, call: Call) -> None:
    seen: list[int] = []

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(3):
            seen.append(len(harness.spans()))
            yield b"chunk"

    async def stream(_request: Request) -> StreamingResponse:
        return StreamingResponse(chunks())

    app = TelemetryMiddleware(Starlette(routes=[Route("/stream", stream)]), harness.telemetry)
    answer = await call(app, "/stream", events=[{"type": "http.request", "body": b"", "more_body": False}])
    assert seen[0] == 0
    assert answer.header("x-request-id")
    assert counted(harness, "GET", "/stream", 200) == 1


async def test_an_event_stream_is_recorded_at_its_first_bytes(harness: Harness, call: Call) -> None:
    held: list[tuple[int, float | None, float | None]] = []

    def reading() -> None:
        labels = {
            "http_request_method": "GET",
            "http_route": "/{unmatched}",
            "http_response_status_code": "200",
        }
        observed = harness.sample("http_server_request_duration_seconds_count", **labels)
        held.append((len(harness.spans()), observed, harness.sample("http_server_active_requests")))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"Content-Type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        reading()
        for part in (b"data: 1\n\n", b"data: 2\n\n"):
            await send({"type": "http.response.body", "body": part, "more_body": True})
            reading()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    answer = await call(TelemetryMiddleware(app, harness.telemetry), "/stream")
    assert answer.body == b"data: 1\n\ndata: 2\n\n"
    reading()
    assert held == [(0, None, 1), (1, 1, 0), (1, 1, 0), (1, 1, 0)]
    assert len(harness.lines("http.request")) == 1


async def test_an_event_stream_that_breaks_is_in_the_log(harness: Harness, call: Call) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        raise BoomError("half way")

    await call(TelemetryMiddleware(app, harness.telemetry), "/stream")
    assert counted(harness, "GET", "/{unmatched}", 200) == 1
    assert harness.line("http.stream_failed")["exception"][0]["value"] == "half way"


async def test_a_broken_stream_keeps_the_status_sent_and_marks_the_span(harness: Harness, call: Call) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise BoomError("half way")

    answer = await call(TelemetryMiddleware(app, harness.telemetry), "/stream")
    assert answer.body == b"half"
    assert counted(harness, "GET", "/{unmatched}", 200) == 1
    assert harness.spans()[-1].status.status_code is StatusCode.ERROR
    assert harness.line("http.request")["exception"][0]["value"] == "half way"


async def test_a_client_that_leaves_before_the_answer_is_499_and_no_error(
    harness: Harness, call: Call
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        raise RuntimeError("client disconnected")

    await call(TelemetryMiddleware(app, harness.telemetry), "/slow")
    assert counted(harness, "GET", "/{unmatched}", 499) == 1
    line = harness.line("http.request")
    assert (line["status"], line["level"], line["disconnected"]) == (499, "info", True)
    assert "exception" not in line
    assert harness.spans()[-1].status.status_code is StatusCode.UNSET


async def test_a_client_that_leaves_a_stream_is_noted(harness: Harness, call: Call) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while (await receive())["type"] != "http.disconnect":
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    await call(TelemetryMiddleware(app, harness.telemetry), "/feed")
    line = harness.line("http.request")
    assert (line["status"], line["disconnected"]) == (200, True)


async def test_a_cancelled_request_is_499(harness: Harness, call: Call) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    task = asyncio.ensure_future(call(TelemetryMiddleware(app, harness.telemetry), "/"))
    await asyncio.sleep(0.01)
    assert harness.sample("http_server_active_requests") == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert counted(harness, "GET", "/{unmatched}", 499) == 1
    assert harness.sample("http_server_active_requests") == 0


async def test_an_application_without_an_answer_is_500(harness: Harness, call: Call) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        return

    await call(TelemetryMiddleware(app, harness.telemetry), "/")
    assert counted(harness, "GET", "/{unmatched}", 500) == 1


async def test_an_unknown_method_cannot_grow_the_labels(harness: Harness, call: Call) -> None:
    app = TelemetryMiddleware(fastapi_app(), harness.telemetry)
    for number in range(5):
        await call(app, "/sync", f"HACK{number}")
    assert counted(harness, "_OTHER", "/sync", 405) == 5
    span = harness.spans()[0]
    assert span.name == "HTTP /sync"
    assert (span.attributes or {})["http.request.method_original"] == "HACK0"


async def test_an_application_may_name_its_route_itself(harness: Harness, call: Call) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["route"] = "/shops/{shop}"
        await PlainTextResponse("x")(scope, receive, send)

    await call(TelemetryMiddleware(app, harness.telemetry), "/shops/9")
    assert counted(harness, "GET", "/shops/{shop}", 200) == 1


async def test_what_a_worker_thread_binds_is_in_the_access_line(harness: Harness, call: Call) -> None:
    await call(TelemetryMiddleware(fastapi_app(), harness.telemetry), "/sync")
    line = harness.line("http.request")
    assert (line["userId"], line["role"]) == ("u-thread", "clerk")
    assert (harness.span("GET /sync").attributes or {})["user.id"] == "u-thread"


async def test_concurrent_requests_do_not_see_each_other(harness: Harness, call: Call) -> None:
    gate = asyncio.Barrier(20)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        name = scope["path"][1:]
        bind(user_id=name)
        await gate.wait()
        assert current().user_id == name
        log.info("inside", name=name)
        await PlainTextResponse(name)(scope, receive, send)

    wrapped = TelemetryMiddleware(app, harness.telemetry)
    answers = await asyncio.gather(
        *(call(wrapped, f"/u{n}", headers=[("X-Request-ID", f"r{n}")]) for n in range(20))
    )
    assert {answer.status for answer in answers} == {200}
    for line in harness.lines("inside"):
        assert line["userId"] == line["name"] == line["requestId"].replace("r", "u")
    assert len({line["traceId"] for line in harness.lines("inside")}) == 20
    assert len({line["traceId"] for line in harness.lines("http.request")}) == 20
    assert current().user_id == ""


async def test_probes_get_their_request_id_and_nothing_else(harness: Harness, call: Call) -> None:
    app = Starlette(routes=[Route("/health/live", PlainTextResponse("ok"))])
    answer = await call(TelemetryMiddleware(app, harness.telemetry), "/health/live")
    assert answer.header("x-request-id")
    assert harness.spans() == []
    assert harness.raw_lines() == []
    assert not harness.metrics("http_server_request_duration_seconds_count")


async def test_disabled_telemetry_leaves_the_request_alone(start: Callable[..., Harness], call: Call) -> None:
    harness = start(enabled=False)
    app = TelemetryMiddleware(fastapi_app(), harness.telemetry)
    answer = await call(app, "/api/v1/items/7", headers=[("X-Request-ID", "keep-me")])
    assert answer.header("x-request-id") == "keep-me"
    assert not [name for name, _ in answer.headers if name == b"traceresponse"]
    assert [line["event"] for line in harness.lines()] == ["item.read"]
    assert "traceId" not in harness.line("item.read")
    assert harness.line("item.read")["requestId"] == "keep-me"
    assert not harness.metrics("http_server_request_duration_seconds_count")
    assert harness.metrics("process_cpu_seconds_total")


async def test_an_answers_own_header_list_is_not_touched(harness: Harness, call: Call) -> None:
    response = PlainTextResponse("shared")
    before = list(response.raw_headers)
    app = TelemetryMiddleware(response, harness.telemetry)
    first, second = await call(app), await call(app)
    assert response.raw_headers == before
    assert first.header("x-request-id") != second.header("x-request-id")


async def test_websockets_and_lifespan_pass_through(harness: Harness) -> None:
    app = FastAPI(telemetry=QUIET)
    seen: list[str] = []

    @app.websocket("/ws")
    async def echo(socket: WebSocket) -> None:
        await socket.accept()
        seen.append(current().request_id)
        await socket.send_text(await socket.receive_text())
        await socket.close()

    wrapped = TelemetryMiddleware(app, harness.telemetry)
    sent: list[dict[str, Any]] = []
    incoming = iter([{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "hello"}])

    async def receive() -> dict[str, Any]:
        return next(incoming)

    async def send(event: Any) -> None:
        sent.append(event)

    scope = {"type": "websocket", "path": "/ws", "headers": [(b"x-request-id", b"ws-1")], "query_string": b""}
    await wrapped(scope, receive, send)
    assert [event["type"] for event in sent] == ["websocket.accept", "websocket.send", "websocket.close"]
    assert sent[1]["text"] == "hello"
    assert seen == ["ws-1"]

    phases = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent.clear()

    async def receive_phase() -> dict[str, Any]:
        return next(phases)

    await wrapped({"type": "lifespan", "state": {}}, receive_phase, send)
    assert [event["type"] for event in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert harness.spans() == []
