"""What a client gets from the rate limiter over HTTP: headers, refusals, whose window counts, and outages."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, WebSocket
from redis.asyncio import Redis
from starlette.types import ASGIApp, Receive, Scope, Send

from compose.native import Stack
from observability import bind
from service.api import API_ROUTERS
from service.app import create_routes, in_layers
from service.container import Container, open_container
from service.http.rate_limit import RateLimit, limited
from service.settings import Settings
from tests.integration.service.harness import BODY, Service, eventually, running

Configure = Callable[..., Settings]
Lines = Callable[[], list[dict[str, object]]]
URL = "/v1/transactions"
UNKNOWN = f"{URL}/00000000-0000-4000-8000-000000000000"

router = APIRouter()


@router.post("/login/{name}")
@limited("2/minute", "3/hour")
async def login(name: str) -> str:
    return name


@router.websocket("/socket")
@limited("1/hour")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


class BindsUser:
    """Stands for authentication: a layer that knows the user by a header."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for name, value in scope["headers"]:
            if name == b"x-test-user":
                bind(user_id=value.decode("latin-1"))
        await self.app(scope, receive, send)


@asynccontextmanager
async def client(
    container: Container, ip: str = "203.0.113.9", app: ASGIApp | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Asks from an address."""
    app = app or in_layers(create_routes(container, [*API_ROUTERS, router]), container)
    transport = httpx.ASGITransport(app, client=(ip, 4711))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


@pytest.fixture
async def three(configure: Configure) -> AsyncIterator[Service]:
    """A service that answers three requests an hour."""
    async with running(configure(RATE_LIMIT_DEFAULT="3/hour")) as service:
        yield service


def refused(answer: httpx.Response) -> int:
    """Check a refusal; give the seconds to wait."""
    assert answer.status_code == 429, answer.text
    body = answer.json()
    assert body.keys() == {"statusCode", "message", "data", "error", "meta"}
    assert body["error"] == {"code": "rate_limited", "message": "Too many requests", "fields": []}
    assert body["meta"]["requestId"] == answer.headers["x-request-id"]
    assert body["meta"]["traceId"] == answer.headers["traceresponse"].split("-")[1]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["ratelimit-remaining"] == "0"
    assert answer.headers["retry-after"] == answer.headers["ratelimit-reset"]
    return int(answer.headers["retry-after"])


async def test_headers_and_the_refusal(three: Service) -> None:
    async with client(three.container) as http:
        answers = [await http.get(UNKNOWN) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [404, 404, 404, 429]
        first = answers[0].headers
        assert first["ratelimit-policy"] == '"ip";q=3;w=3600'
        assert first["ratelimit-limit"] == "3"
        assert first["ratelimit-remaining"] == "2"
        assert 3600 <= int(first["ratelimit-reset"]) <= 3660
        assert first["ratelimit"] == f'"ip";r=2;t={first["ratelimit-reset"]}'
        assert "retry-after" not in first
        assert 3590 <= refused(answers[3]) <= 3660
        labels = {
            "http_request_method": "GET",
            "http_route": f"{URL}/{{transaction_id}}",
            "http_response_status_code": "429",
        }
        assert three.metric("http_server_request_duration_seconds_count", labels) == 1
    assert three.metric("yardstick_rate_limit_decisions_total", {"outcome": "allowed"}) == 3
    assert three.metric("yardstick_rate_limit_decisions_total", {"outcome": "refused"}) == 1
    assert three.metric("yardstick_rate_limit_decisions_total", {"outcome": "failed_open"}) == 0


async def test_what_never_reaches_a_route_is_counted_too(three: Service) -> None:
    async with client(three.container) as http:
        assert (await http.get("/nowhere")).status_code == 404
        assert (await http.delete(URL)).status_code == 405
        assert (
            await http.post(URL, content=b"{", headers={"content-type": "application/json"})
        ).status_code == 422
        refused(await http.get("/another/nowhere"))
        refused(await http.post(URL, content=b" " * 3_000_000))


async def test_health_and_metrics_are_free(three: Service) -> None:
    async with client(three.container, "127.0.0.1") as http:
        for path in ("/health", "/health/live", "/health/ready", "/metrics"):
            for _ in range(5):
                answer = await http.get(path)
                assert answer.status_code == 200
                assert "ratelimit-limit" not in answer.headers
        assert (await http.get("/nowhere")).headers["ratelimit-remaining"] == "2"


async def test_addresses_count_apart_and_an_ipv6_network_as_one(three: Service) -> None:
    app = in_layers(create_routes(three.container, API_ROUTERS), three.container)
    statuses = []
    for ip in (
        ["203.0.113.9"] * 4 + ["203.0.113.10"] + [f"2001:db8::{n}" for n in range(1, 5)] + ["2001:db8:0:1::"]
    ):
        async with client(three.container, ip, app) as http:
            statuses.append((await http.get("/nowhere")).status_code)
    assert statuses == [404, 404, 404, 429, 404, 404, 404, 404, 429, 404]


async def test_a_forged_header_is_no_new_client(three: Service) -> None:
    async with client(three.container) as http:
        for n in range(3):
            await http.get(
                "/nowhere", headers={"x-forwarded-for": f"198.51.100.{n}", "forwarded": f"for=1.1.1.{n}"}
            )
        refused(await http.get("/nowhere", headers={"x-forwarded-for": "198.51.100.77"}))


async def test_behind_a_trusted_proxy_clients_are_told_apart(configure: Configure, log_lines: Lines) -> None:
    settings = configure(RATE_LIMIT_DEFAULT="1/hour", APP_TRUSTED_PROXIES="10.0.0.0/24")
    async with running(settings) as service, client(service.container, "10.0.0.7") as http:
        for ip in ("198.51.100.1", "198.51.100.2"):
            assert (await http.get("/nowhere", headers={"x-forwarded-for": ip})).status_code == 404
            refused(await http.get("/nowhere", headers={"x-forwarded-for": f"1.1.1.1, {ip}"}))
    seen = [line["ip"] for line in log_lines() if line["event"] == "http.request"]
    assert seen == ["198.51.100.1"] * 2 + ["198.51.100.2"] * 2


async def test_a_user_has_a_window_wherever_they_are(configure: Configure) -> None:
    settings = configure(RATE_LIMIT_DEFAULT="1/hour", RATE_LIMIT_USER="2/hour")
    async with open_container(settings, "api") as container:
        inner = in_layers(create_routes(container, API_ROUTERS), container)
        layer: Any = inner
        while not isinstance(layer.app, RateLimit):
            layer = layer.app
        layer.app = BindsUser(layer.app)

        async def ask(ip: str, user: str) -> httpx.Response:
            async with client(container, ip, inner) as http:
                return await http.get(
                    "/nowhere", headers=[(b"x-test-user", user.encode("latin-1"))] if user else []
                )

        assert (await ask("203.0.113.1", "u1")).headers["ratelimit-policy"] == '"user";q=2;w=3600'
        assert (await ask("203.0.113.2", "u1")).status_code == 404
        refused(await ask("203.0.113.3", "u1"))
        assert (await ask("203.0.113.3", "u2")).status_code == 404
        assert (await ask("203.0.113.3", "")).status_code == 404
        refused(await ask("203.0.113.3", ""))
        assert (await ask("203.0.113.3", "x" * 5000 + "\xff: \x01")).status_code == 404
        keys = [key async for key in container.redis.scan_iter(match="*:rate:*")]
        assert len(keys) == 4
        assert max(map(len, keys)) < 100
        assert all([await container.redis.pttl(key) > 0 for key in keys])


async def test_a_route_with_rates_of_its_own(three: Service) -> None:
    async with client(three.container) as http:
        first = await http.post("/login/ann")
        assert first.headers["ratelimit-policy"] == '"route-60";q=2;w=60, "route-3600";q=3;w=3600'
        assert first.headers["ratelimit"].startswith('"route-60";r=1;t=6')
        assert first.headers["ratelimit-limit"] == "2"
        assert (await http.post("/login/bob")).status_code == 200
        assert 50 <= refused(await http.post("/login/cid")) <= 61
        # It is counted by its own rates alone, and the refused one not at all.
        assert (await http.get("/nowhere")).headers["ratelimit-remaining"] == "2"
        found = [key.decode() async for key in three.container.redis.scan_iter(match="*:rate:route*")]
        assert sorted(found) == [
            f"yardstick:rate:route:POST /login/{{name}}:ip:203.0.113.9:{seconds}" for seconds in (3600, 60)
        ]


async def test_a_websocket_is_refused_before_it_opens(three: Service) -> None:
    app = in_layers(create_routes(three.container, [router]), three.container)
    outcomes = []
    for extensions in ((), (), ("websocket.http.response",)):
        sent: list[dict[str, object]] = []
        incoming = iter([{"type": "websocket.connect"}])

        async def receive(incoming: Iterator[dict[str, str]] = incoming) -> dict[str, str]:
            return next(incoming)

        async def send(message: object, sent: list[dict[str, object]] = sent) -> None:
            assert isinstance(message, dict)
            sent.append(message)

        scope = {
            "type": "websocket", "path": "/socket", "raw_path": b"/socket", "query_string": b"",
            "root_path": "", "scheme": "ws", "headers": [], "client": ("203.0.113.9", 1),
            "extensions": dict.fromkeys(extensions),
        }  # fmt: skip
        await app(scope, receive, send)
        outcomes.append([message["type"] for message in sent])
    assert outcomes == [
        ["websocket.accept", "websocket.close"],
        ["websocket.close"],
        ["websocket.http.response.start", "websocket.http.response.body"],
    ]
    assert sent[0]["status"] == 429


async def test_switched_off(configure: Configure) -> None:
    async with running(configure(RATE_LIMIT_DEFAULT="1/hour", RATE_LIMIT_ENABLED="false")) as service:
        answers = [await service.http.get("/nowhere") for _ in range(3)]
        assert {answer.status_code for answer in answers} == {404}
        assert "ratelimit-limit" not in answers[0].headers


def test_a_wrong_declaration_is_seen_on_import() -> None:
    for rates in ((), ("5/minute", "6/minute"), ("often",)):
        with pytest.raises(ValueError, match=r"each over another time|must be a number"):
            limited(*rates)


# -- the store is away -----------------------------------------------------------------------------------


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Stack]:
    """A Redis that only this test has, and may stop."""
    with Stack(tmp_path / "stack", only=("redis",)) as stack:
        yield stack


async def timed(http: httpx.AsyncClient, path: str = "/nowhere") -> float:
    started = time.perf_counter()
    assert (await http.get(path)).status_code == 404
    return time.perf_counter() - started


FAILED_OPEN = ("yardstick_rate_limit_decisions_total", {"outcome": "failed_open"})


def failing_open(lines: list[dict[str, object]]) -> list[object]:
    return [line["error"] for line in lines if line["event"] == "rate_limit.failing_open"]


async def test_a_stopped_server_fails_open_without_delay(
    own_redis: Stack, configure: Configure, log_lines: Lines
) -> None:
    """With the settings of production: ten seconds to connect, three retries."""
    settings = configure(
        RATE_LIMIT_DEFAULT="5/hour", RATE_LIMIT_BREAKER_SECONDS=1, REDIS_URL=own_redis.endpoints()["redis"],
        REDIS_CONNECT_TIMEOUT_SECONDS=10, REDIS_RETRIES=3,
    )  # fmt: skip
    async with running(settings) as service:
        for _ in range(5):
            await timed(service.http)
        refused(await service.http.get("/nowhere"))
        # A busy machine may have been too slow for one already.
        before = service.metric(*FAILED_OPEN) or 0
        await asyncio.to_thread(own_redis.stop, "redis")
        started = time.perf_counter()
        times = [await timed(service.http) for _ in range(100)]
        took = time.perf_counter() - started
        print(f"Redis stopped: 100 requests in {took:.2f} s, slowest {max(times) * 1000:.0f} ms")
        print("log:", failing_open(log_lines()))
        # Three learn it the hard way, then one in a second.
        assert (
            sum(1 for t in times if t >= 0.09) <= 3 + took / 1 + 5
        )  # and the machine has other things to do
        assert service.metric(*FAILED_OPEN) == before + 100
        assert service.metric("yardstick_rate_limit_breaker_open") == 1
        assert len(failing_open(log_lines())) == 1
        await asyncio.to_thread(own_redis.start, "redis")
        await asyncio.sleep(1.1)
        answer = await service.http.get("/nowhere")
        assert "ratelimit-remaining" in answer.headers
        assert service.metric("yardstick_rate_limit_breaker_open") == 0
        assert [line["event"] for line in log_lines()].count("rate_limit.restored") == 1


async def test_a_server_that_hangs_fails_open_too(configure: Configure, log_lines: Lines) -> None:
    settings = configure(RATE_LIMIT_DEFAULT="1000/hour", REDIS_COMMAND_TIMEOUT_SECONDS=5, REDIS_RETRIES=3)
    async with running(settings) as service:
        other = Redis.from_url(settings.redis.url.get_secret_value())
        await timed(service.http)
        await other.execute_command("CLIENT", "PAUSE", 6000, "ALL")
        started = time.perf_counter()
        times = [await timed(service.http) for _ in range(50)]
        # And a crowd at once, of which nobody waits longer.
        crowd = await asyncio.gather(*(timed(service.http) for _ in range(100)))
        took = time.perf_counter() - started
        print(f"CLIENT PAUSE: 150 requests in {took:.2f} s, slowest {max([*times, *crowd]) * 1000:.0f} ms")
        print("log:", failing_open(log_lines()))
        assert took < 5.5
        assert sum(1 for t in times if t >= 0.09) <= 10
        assert service.metric("yardstick_rate_limit_decisions_total", {"outcome": "failed_open"}) == 150

        async def limited_again() -> bool:
            return "ratelimit-remaining" in (await service.http.get("/nowhere")).headers

        await eventually(limited_again, within=20, every=0.2)
        await other.aclose()


async def test_business_goes_on_while_the_limiter_cannot_write(configure: Configure) -> None:
    """A server that answers and refuses, as when its memory is full."""
    async with running(configure()) as service:
        redis = service.container.redis
        await redis.config_set("maxmemory", "1")
        await redis.config_set("maxmemory-policy", "noeviction")
        try:
            assert (await service.http.post(URL, json=BODY)).status_code == 201
        finally:
            await redis.config_set("maxmemory", "0")
        assert service.metric("yardstick_rate_limit_decisions_total", {"outcome": "failed_open"}) == 1
