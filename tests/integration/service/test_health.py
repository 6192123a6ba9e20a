"""Health on real servers: how often they are asked, what happens when they hang, and who may look."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from compose.native import Stack
from service.app import create_app
from service.container import open_container
from service.db import migrate
from service.http.server import HttpServer
from service.settings import DatabaseSettings, Settings
from tests.integration.service.conftest import aside, sql
from tests.integration.service.harness import Service, eventually, running
from tests.ports import free_port

Configure = Callable[..., Settings]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    """Servers that only this test has, and may stop."""
    with Stack(tmp_path / "stack", only=("postgres", "redis")) as stack:
        database = DatabaseSettings.model_validate({"url": stack.endpoints()["postgres"]})
        aside(lambda: migrate.upgrade(database))
        yield stack


def on(own: Stack, configure: Configure, **variables: object) -> Settings:
    urls = own.endpoints()
    return configure(DATABASE_URL=urls["postgres"], REDIS_URL=urls["redis"], **variables)


@contextmanager
def frozen(own: Stack, name: str) -> Iterator[None]:
    """The server takes connections and says nothing, as behind a network that drops everything."""
    pid = own.pid(name)
    assert pid is not None
    process = psutil.Process(pid)
    stopped = [process, *process.children(recursive=True)]
    for each in stopped:
        each.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for each in reversed(stopped):
            if each.is_running():
                each.send_signal(signal.SIGCONT)


async def health(service: Service) -> dict[str, Any]:
    data: dict[str, Any] = (await service.http.get("/health")).json()["data"]
    return data


def questions(own: Stack) -> int:
    """How often PostgreSQL was asked whether it is there, by its own log."""
    return sum(
        line.rstrip().endswith(": SELECT 1")
        for file in own.paths.state.rglob("*.log")
        for line in file.read_text("utf-8", "replace").splitlines()
    )


async def test_probes_cannot_load_the_database(own: Stack, configure: Configure) -> None:
    settings = on(own, configure, HEALTH_CACHE_SECONDS=2)
    sql(settings.database.url.get_secret_value(), "ALTER DATABASE yardstick SET log_statement = 'all'")
    async with running(settings) as service:
        paths = ("/health", "/health/ready")
        answers = await asyncio.gather(*(service.http.get(paths[n % 2]) for n in range(200)))
        assert {answer.status_code for answer in answers} == {200}
        at_once = questions(own)
        started = time.monotonic()
        count = 200
        while time.monotonic() - started < 5:
            await asyncio.gather(*(service.http.get("/health/ready") for _ in range(20)))
            count += 20
        took = time.monotonic() - started
        assert at_once == 1
        assert 2 <= questions(own) <= 1 + took / 2 + 1
        print(
            f"200 probes at once: {at_once} query; {count} probes in {took:.1f} s: {questions(own)} queries"
        )


async def test_a_database_that_hangs(own: Stack, configure: Configure) -> None:
    settings = on(own, configure, HEALTH_CACHE_SECONDS=0.1, HEALTH_TIMEOUT_SECONDS=1)
    async with running(settings) as service:
        assert (await service.http.get("/health/ready")).status_code == 200
        with frozen(own, "postgres"):
            await asyncio.sleep(0.15)
            started = time.monotonic()
            answer, live, body = await asyncio.gather(
                service.http.get("/health/ready"), service.http.get("/health/live"), health(service)
            )
            took = time.monotonic() - started
            print(
                f"PostgreSQL frozen, answered after {took:.2f} s:",
                answer.status_code,
                answer.json()["message"],
            )
            print("  ", body["dependencies"])
            assert took < 3
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "unavailable"
            assert live.status_code == 200
            assert body["status"] == "down"
            assert body["dependencies"]["database"]["error"] == "timeout"
            assert body["dependencies"]["cache"]["status"] == "up"
            for _ in range(3):
                await service.http.get("/health/ready")
                await asyncio.sleep(0.15)
            names = [task.get_name() for task in asyncio.all_tasks()]
            assert names.count("health-database") == 1

        async def ready() -> bool:
            return (await service.http.get("/health/ready")).status_code == 200

        await eventually(ready, every=0.1)


async def test_a_redis_that_hangs_is_degraded_and_ready(own: Stack, configure: Configure) -> None:
    settings = on(own, configure, HEALTH_CACHE_SECONDS=0.1, HEALTH_TIMEOUT_SECONDS=1)
    async with running(settings) as service:
        assert (await health(service))["status"] == "up"
        with frozen(own, "redis"):
            await asyncio.sleep(0.15)
            body = await health(service)
            print("Redis frozen:", body["status"], body["dependencies"])
            assert body["status"] == "degraded"
            assert body["dependencies"]["cache"]["error"] == "timeout"
            assert body["dependencies"]["queue"]["error"] == "timeout"
            assert (await service.http.get("/health/ready")).status_code == 200

        async def up() -> bool:
            return bool((await health(service))["status"] == "up")

        await eventually(up, every=0.1)


async def test_the_servers_gone(own: Stack, configure: Configure) -> None:
    async with running(on(own, configure, HEALTH_CACHE_SECONDS=0.1)) as service:
        await asyncio.to_thread(own.kill, "postgres")
        await asyncio.to_thread(own.kill, "redis")
        body = await health(service)
        print("both killed:", body["status"], body["dependencies"])
        assert body["status"] == "down"
        assert {name for name, found in body["dependencies"].items() if found["status"] == "down"} == {
            "database", "cache", "queue",
        }  # fmt: skip
        assert "password" not in str(body)
        assert (await service.http.get("/health/live")).status_code == 200


async def test_a_full_disk_is_degraded(configure: Configure) -> None:
    async with running(configure(HEALTH_DISK_FREE_PERCENT=99.999)) as service:
        body = await health(service)
        assert body["status"] == "degraded"
        assert body["dependencies"]["disk"] == body["dependencies"]["disk"] | {
            "status": "down",
            "error": "ProbeError",
        }
        assert (await service.http.get("/health/ready")).status_code == 200


async def test_draining_is_not_ready_and_still_live(configure: Configure) -> None:
    async with running(configure()) as service:
        assert (await service.http.get("/health/ready")).status_code == 200
        service.container.health.draining = True
        answer = await service.http.get("/health/ready")
        assert (answer.status_code, answer.json()["message"]) == (503, "Draining")
        assert (await service.http.get("/health/live")).status_code == 200
        assert (await health(service))["status"] == "draining"


# -- who may look ----------------------------------------------------------------------------------------


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The API behind a real port, and a client that talks to it directly."""
    port = free_port()
    async with open_container(settings, "api") as container:
        server = HttpServer(create_app(container), host="127.0.0.1", port=port)
        await server.start()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            yield http
        await server.stop(2)


def is_nothing(answer: httpx.Response, unknown: httpx.Response) -> None:
    """The answer does not tell that there is anything: it is that of an unknown path."""
    assert answer.status_code == unknown.status_code == 404
    one, other = answer.json(), unknown.json()
    assert one.pop("meta").keys() == other.pop("meta").keys()
    assert one == other


FORWARDING = [
    {"X-Forwarded-For": "203.0.113.9"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"X-Forwarded-For": ""},
    {"X-Forwarded-Proto": "https"},
    {"Forwarded": "for=127.0.0.1"},
    {"X-Real-IP": "127.0.0.1"},
    {"Via": "1.1 edge"},
]


@pytest.mark.parametrize("trusted", ["", "127.0.0.1"], ids=["no proxy trusted", "proxy trusted"])
async def test_metrics_and_details_are_for_the_inside(configure: Configure, trusted: str) -> None:
    async with served(configure(APP_TRUSTED_PROXIES=trusted)) as http:
        direct = await http.get("/metrics")
        assert direct.status_code == 200
        assert "yardstick_rate_limit_decisions_total" in direct.text
        assert 'yardstick_health_checks_total{dependency="database",outcome="up"}' in direct.text
        scraped = {"Accept": "application/openmetrics-text", "X-Prometheus-Scrape-Timeout-Seconds": "4"}
        assert (await http.get("/metrics", headers=scraped)).text.endswith("# EOF\n")
        details = (await http.get("/health")).json()["data"]
        assert details["version"]
        assert details["dependencies"]["database"]["latencyMs"] > 0
        unknown = await http.get("/unknown")
        for headers in FORWARDING:
            is_nothing(await http.get("/metrics", headers=headers), unknown)
            outside = (await http.get("/health", headers=headers)).json()["data"]
            assert outside == {"status": "up", "version": None, "dependencies": None}
            assert (await http.get("/health/ready", headers=headers)).status_code == 200


async def test_a_network_that_is_not_listed_is_outside(configure: Configure) -> None:
    async with served(configure(APP_OPERATIONS_NETWORKS="10.9.0.0/16,::1")) as http:
        is_nothing(await http.get("/metrics"), await http.get("/unknown"))
        assert (await http.get("/health")).json()["data"]["dependencies"] is None
