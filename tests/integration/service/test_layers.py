"""What the layers around the routes do, in the order in which they really stand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from sqlalchemy import select, text
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from service.app import create_routes, in_layers
from service.container import Container
from service.errors import ServiceError, TooManyRequestsError, UnavailableError
from service.features.transactions.models import Transaction
from service.http.dependencies import CurrentUnit
from service.http.middleware import BodyLimit
from service.settings import Settings
from tests.integration.service.harness import Service, eventually, running

Configure = Callable[..., Settings]
ORIGIN = "https://app.example.com"
LAYER_HEADERS = {
    "x-request-id",
    "traceresponse",
    "x-content-type-options",
    "x-frame-options",
    "referrer-policy",
    "content-security-policy",
    "cache-control",
}


class Stumble:
    """A layer that raises where a header says so."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kinds: dict[bytes, Exception] = {
            b"bug": RuntimeError("secret detail"),
            b"limit": TooManyRequestsError(headers={"Retry-After": "7"}),
            b"away": UnavailableError(),
        }
        for name, value in scope.get("headers", ()):
            if name == b"stumble":
                raise kinds[value]
        await self.app(scope, receive, send)


def strange_routes() -> APIRouter:  # noqa: C901 - many routes, each of a few lines
    router = APIRouter(prefix="/strange")

    @router.get("/bug")
    async def bug() -> None:
        raise RuntimeError("secret detail postgresql://u:pw@h/d")

    @router.get("/slow-statement")
    async def slow_statement(unit: CurrentUnit) -> None:
        await unit.session.execute(text("SELECT pg_sleep(30)"))

    @router.get("/slow-by-lock")
    async def slow_by_lock(unit: CurrentUnit) -> None:
        await unit.session.execute(select(Transaction).with_for_update())

    @router.get("/status/{status}")
    async def status(status: int) -> None:
        raise HTTPException(status)

    @router.get("/text")
    async def some_text(size: Annotated[int, Query()]) -> str:
        return "x" * size

    @router.get("/events")
    async def events() -> StreamingResponse:
        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"data: " + b"y" * 5000 + b"\n\n"
                await asyncio.sleep(0.01)

        return StreamingResponse(endless(), media_type="text/event-stream")

    @router.get("/binary")
    async def binary() -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(4):
                yield b"\0" * 5000

        return StreamingResponse(parts(), media_type="application/octet-stream")

    @router.head("/own-head")
    async def own_head() -> Response:
        return Response(headers={"x-own": "yes"})

    @router.get("/own-head")
    async def not_own_head() -> str:
        return "no"

    @router.put("/both/{name}")
    async def put(name: str) -> str:
        return name

    @router.get("/both/{name}")
    async def get(name: str) -> str:
        return name

    return router


@asynccontextmanager
async def strange(container: Container) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an API with strange routes, in the layers of the real one."""
    app = in_layers(create_routes(container, [strange_routes()]), container)
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


def add_stumble(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer that can stumble, just outside of the routes."""
    monkeypatch.setattr("service.app.BodyLimit", lambda app, **given: Stumble(BodyLimit(app, **given)))


@pytest.fixture
async def http(service: Service, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """The same, with a layer that can stumble."""
    add_stumble(monkeypatch)
    async with strange(service.container) as client:
        yield client


def frame(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check frame and headers of a failure; give its error."""
    assert answer.status_code == status, answer.text
    assert answer.headers.keys() >= LAYER_HEADERS
    body = answer.json()
    assert body.keys() == {"statusCode", "message", "data", "error", "meta"}
    assert (body["statusCode"], body["data"]) == (status, None)
    assert body["meta"]["requestId"] == answer.headers["x-request-id"]
    assert body["meta"]["traceId"] == answer.headers["traceresponse"].split("-")[1]
    error: dict[str, Any] = body["error"]
    assert error["code"] == code
    assert "secret" not in answer.text
    return error


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/strange/nothing", 404, "not_found"),
        ("/strange/status/400", 422, "validation_failed"),
        ("/strange/status/401", 401, "unauthenticated"),
        ("/strange/status/403", 403, "forbidden"),
        ("/strange/status/404", 404, "not_found"),
        ("/strange/status/409", 409, "conflict"),
        ("/strange/status/418", 418, "refused"),
        ("/strange/status/429", 429, "rate_limited"),
        ("/strange/status/500", 500, "internal"),
        ("/strange/status/503", 503, "unavailable"),
        ("/strange/status/599", 500, "internal"),
        ("/strange/status/word", 422, "validation_failed"),
        ("/strange/text", 422, "validation_failed"),
        ("/strange/bug", 500, "internal"),
    ],
)
async def test_every_failure_of_a_route_has_the_frame(
    http: httpx.AsyncClient, path: str, status: int, code: str
) -> None:
    frame(await http.get(path), status, code)


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [("bug", 500, "internal"), ("limit", 429, "rate_limited"), ("away", 503, "unavailable")],
)
@pytest.mark.parametrize("path", ["/strange/text?size=1", "/strange/nothing"])
async def test_every_failure_of_a_layer_has_the_frame(  # noqa: PLR0917
    http: httpx.AsyncClient, service: Service, path: str, kind: str, status: int, code: str
) -> None:
    answer = await http.get(path, headers={"stumble": kind})
    frame(answer, status, code)
    if kind != "bug":
        assert int(answer.headers["retry-after"]) > 0
    [span] = service.spans("GET")
    # What a bug was is told to telemetry, and to nobody else.
    assert any(event.name == "exception" for event in span.events) == (kind == "bug")


async def test_a_statement_over_its_time_is_503_with_the_frame(configure: Configure) -> None:
    async with (
        running(configure(DATABASE_STATEMENT_TIMEOUT_MS=150)) as service,
        strange(service.container) as http,
    ):
        answer = await http.get("/strange/slow-statement")
        frame(answer, 503, "unavailable")
        assert int(answer.headers["retry-after"]) > 0
        await service.create()
        async with service.container.database.unit() as unit:
            await unit.session.execute(select(Transaction).with_for_update())
            frame(await http.get("/strange/slow-by-lock"), 503, "unavailable")
        assert (await http.get("/strange/slow-by-lock")).status_code == 200


async def test_an_exhausted_pool_is_503_with_the_frame_and_counted(configure: Configure) -> None:
    settings = configure(DATABASE_POOL_SIZE=1, DATABASE_MAX_OVERFLOW=1, DATABASE_POOL_TIMEOUT_SECONDS=1)
    async with running(settings) as service, strange(service.container) as http:
        await service.create()
        database = service.container.database
        assert service.metric("yardstick_db_pool_limit") == 2
        async with database.unit(), database.unit():
            assert service.metric("yardstick_db_pool_connections", {"state": "used"}) == 2
            assert service.metric("yardstick_db_pool_connections", {"state": "overflow"}) == 1
            waiting = asyncio.create_task(http.get("/strange/slow-by-lock"))

            async def queued() -> bool:
                return (service.metric("yardstick_db_pool_waiting") or 0) >= 1

            await eventually(queued)
            frame(await waiting, 503, "unavailable")
        # What the service does of its own accord may have met the limit too.
        assert (service.metric("yardstick_db_pool_timeouts_total") or 0) >= 1
        assert service.metric("yardstick_db_pool_waiting") == 0
        waited = service.metric("yardstick_db_pool_wait_seconds_bucket", {"le": "0.1"}) or 0
        units = service.metric("yardstick_db_pool_wait_seconds_count") or 0
        assert units - waited >= 1
        assert (await http.get("/strange/slow-by-lock")).status_code == 200


async def test_head_is_get_without_the_body(http: httpx.AsyncClient, service: Service) -> None:
    for path in ("/strange/text?size=5", "/strange/text?size=5000", "/strange/both/x", "/strange/binary"):
        got, head = await http.get(path), await http.head(path)
        assert (head.status_code, head.content) == (200, b"")
        for name in ("content-type", "content-length", "content-encoding"):
            assert head.headers.get(name) == got.headers.get(name)
        assert head.headers.keys() >= LAYER_HEADERS
    assert (await http.head("/strange/nothing")).status_code == 404
    assert service.spans("HEAD /strange/both/{name}")
    assert (await http.head("/strange/own-head")).headers["x-own"] == "yes"


async def test_head_of_an_endless_stream_ends(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(5):
        answer = await http.head("/strange/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content == b""


async def test_options_and_405_name_every_method(http: httpx.AsyncClient) -> None:
    answer = await http.options("/strange/both/x")
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["allow"] == "GET, HEAD, PUT, OPTIONS"
    assert answer.headers.keys() >= LAYER_HEADERS
    for method in ("POST", "DELETE", "TRACE", "FOO", "PROPFIND"):
        answer = await http.request(method, "/strange/both/x")
        frame(answer, 405, "method_not_allowed")
        assert answer.headers.get_list("allow") == ["GET, HEAD, PUT, OPTIONS"]
    frame(await http.options("/strange/nothing"), 404, "not_found")


async def test_large_texts_are_gzipped_and_nothing_else(http: httpx.AsyncClient) -> None:
    large = await http.get("/strange/text?size=5000")
    assert large.headers["content-encoding"] == "gzip"
    assert int(large.headers["content-length"]) < 200
    assert "accept-encoding" in large.headers["vary"].lower()
    assert large.json() == "x" * 5000
    for path in ("/strange/text?size=500", "/strange/binary"):
        assert "content-encoding" not in (await http.get(path)).headers
    plain = await http.get("/strange/text?size=5000", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.json() == "x" * 5000


async def test_an_event_stream_is_not_gzipped(http: httpx.AsyncClient) -> None:
    """Read from the ASGI messages: the client of this test would wait for the end of the stream."""
    sent: list[Any] = []
    enough = asyncio.Event()

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) > 3:
            enough.set()

    async def receive() -> dict[str, Any]:
        await enough.wait()
        return {"type": "http.disconnect"}

    transport = http._transport
    assert isinstance(transport, httpx.ASGITransport)
    scope = {
        "type": "http", "method": "GET", "path": "/strange/events", "raw_path": b"/strange/events",
        "query_string": b"", "headers": [(b"accept-encoding", b"gzip")], "http_version": "1.1",
        "scheme": "http", "server": ("test", 80), "client": ("127.0.0.1", 1), "root_path": "",
    }  # fmt: skip
    async with asyncio.timeout(5):
        await transport.app(scope, receive, send)
    assert b"content-encoding" not in dict(sent[0]["headers"])
    assert sent[1]["body"].startswith(b"data: yyy")


async def test_compression_can_be_switched_off(configure: Configure) -> None:
    async with (
        running(configure(APP_COMPRESSION_MIN_BYTES=0)) as service,
        strange(service.container) as http,
    ):
        assert "content-encoding" not in (await http.get("/strange/text?size=5000")).headers


def preflight(origin: str = ORIGIN, **headers: str) -> dict[str, str]:
    return {"origin": origin, "access-control-request-method": "POST"} | headers


async def test_without_origins_no_page_may_call(http: httpx.AsyncClient) -> None:
    answer = await http.get("/strange/text?size=1", headers={"origin": ORIGIN})
    assert not any(name.startswith("access-control") for name in answer.headers)
    answer = await http.options("/strange/both/x", headers=preflight())
    assert not any(name.startswith("access-control") for name in answer.headers)


async def test_named_origins_may_call_and_read_errors_too(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_stumble(monkeypatch)
    settings = configure(APP_CORS_ORIGINS=f"{ORIGIN}/, http://localhost:5173")
    async with running(settings) as service, strange(service.container) as http:
        asked = {"access-control-request-headers": "authorization, content-type, idempotency-key"}
        answer = await http.options("/strange/both/x", headers=preflight(**asked))
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in answer.headers
        assert answer.headers.keys() >= LAYER_HEADERS
        for path, stumble, status in (
            ("/strange/text?size=1", "", 200),
            ("/strange/nothing", "", 404),
            ("/strange/bug", "", 500),
            ("/strange/text?size=1", "bug", 500),
            ("/strange/text?size=1", "limit", 429),
            ("/strange/text?size=1", "away", 503),
        ):
            sent = {"origin": ORIGIN} | ({"stumble": stumble} if stumble else {})
            answer = await http.get(path, headers=sent)
            assert answer.status_code == status
            assert answer.headers["access-control-allow-origin"] == ORIGIN
            exposed = answer.headers["access-control-expose-headers"]
            assert {"X-Request-ID", "traceresponse", "Retry-After"} <= set(exposed.split(", "))
        for refused in (
            preflight("https://evil.example.com"),
            preflight(**{"access-control-request-headers": "x-secret"}),
            preflight(**{"access-control-request-method": "TRACE"}),
        ):
            frame(await http.options("/strange/both/x", headers=refused), 400, "refused")
        stranger = await http.get("/strange/text?size=1", headers={"origin": "https://evil.example.com"})
        assert "access-control-allow-origin" not in stranger.headers


async def test_while_draining_answers_ask_to_close_the_connection(
    http: httpx.AsyncClient, service: Service
) -> None:
    assert "connection" not in (await http.get("/strange/text?size=1")).headers
    service.container.health.draining = True
    for path in ("/strange/text?size=1", "/strange/bug", "/strange/nothing"):
        assert (await http.get(path)).headers["connection"] == "close"


async def test_openapi_declares_the_bearer_scheme_and_closes_no_route(service: Service) -> None:
    schema = (await service.http.get("/openapi.json")).json()
    assert schema["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert "security" not in schema
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            assert operation["tags"], (path, method)
            assert operation["tags"][0] in {tag["name"] for tag in schema["tags"]}
            failure = operation["responses"]["default"]["content"]["application/json"]["schema"]
            assert failure == {"$ref": "#/components/schemas/Failure"}
    assert "HTTPValidationError" not in schema["components"]["schemas"]


@pytest.mark.parametrize("env", ["development", "staging", "test"])
async def test_openapi_is_there_outside_of_production(configure: Configure, env: str) -> None:
    async with running(configure(APP_ENV=env, FILES_SIGNING_KEY="k" + "7Jq-vX2m" * 4)) as service:
        for path in ("/openapi.json", "/docs"):
            assert (await service.http.get(path)).status_code == 200


def test_every_error_has_a_code_of_its_own() -> None:
    def below(kind: type[ServiceError]) -> list[type[ServiceError]]:
        return [kind, *(found for child in kind.__subclasses__() for found in below(child))]

    for kind in below(ServiceError):
        assert kind.code == kind.code.lower()
        assert kind.message
