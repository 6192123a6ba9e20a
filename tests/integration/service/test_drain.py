"""SIGTERM under load: what clients behind a load balancer see, what becomes of jobs, what closes when."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import httpx
import pytest

from observability import EventLoopMonitor, Telemetry
from service.container import open_container
from service.db.session import Database
from service.infra.event_bus import EventBus
from service.settings import Settings
from tests.integration.service.harness import BODY, eventually
from tests.integration.service.launched import Process

Configure = Callable[..., Settings]
Start = Callable[[str], Process]


@pytest.fixture
def start(configure: Configure, tmp_path: Path) -> Iterator[Start]:
    """Starts `service.app` or `service.worker`; what is left at the end is killed."""
    configure(
        TELEMETRY_LOG_SINK="stdout",
        APP_DRAIN_NOTICE_SECONDS=0.5,
        APP_DRAIN_SECONDS=10,
        HEALTH_CACHE_SECONDS=0.05,
        RATE_LIMIT_ENABLED="false",
    )
    started: list[Process] = []

    def launch(module: str) -> Process:
        started.append(Process(module, tmp_path))
        return started[-1]

    yield launch
    for process in started:
        process.end()


class Balancer:
    """What a load balancer does: probes, keeps connections, tries another instance when one cannot be opened.

    A request that was sent is never sent again: what happens to it counts.
    """

    def __init__(self, instances: list[Process]) -> None:
        self.instances = instances
        self.ready = {instance.url: True for instance in instances}
        self.created: list[str] = []
        self.failures: list[str] = []
        self.served: dict[str, int] = {}
        self.closed = 0
        self._http = httpx.AsyncClient(timeout=20, limits=httpx.Limits(max_keepalive_connections=50))
        self._stopping = asyncio.Event()
        self._turn = 0

    async def probe(self) -> None:
        async with httpx.AsyncClient(timeout=2) as http:
            while not self._stopping.is_set():
                for instance in list(self.instances):
                    try:
                        answer = await http.get(f"{instance.url}/health/ready")
                        self.ready[instance.url] = answer.status_code == 200
                    except httpx.TransportError:
                        self.ready[instance.url] = False
                await asyncio.sleep(0.05)

    async def client(self, number: int) -> None:
        while not self._stopping.is_set():
            await self._request(number)
            await asyncio.sleep(0.005)

    async def _request(self, number: int) -> None:
        for _ in range(3):
            up = [instance.url for instance in self.instances if self.ready[instance.url]]
            if not up:
                self.failures.append("no instance is ready")
                return
            self._turn += 1
            url = up[self._turn % len(up)]
            try:
                answer = await self._http.post(f"{url}/v1/transactions", json=BODY)
            except httpx.ConnectError:
                continue
            except httpx.TransportError as error:
                self.failures.append(f"{url}: {error!r}")
                return
            self.served[url] = self.served.get(url, 0) + 1
            self.closed += answer.headers.get("connection") == "close"
            if answer.status_code == 201:
                self.created.append(answer.json()["data"]["id"])
            else:
                self.failures.append(f"{url}: {answer.status_code} {answer.text}")
            return
        self.failures.append("no instance could be connected to")

    async def end(self, tasks: list["asyncio.Task[None]"]) -> None:
        self._stopping.set()
        await asyncio.gather(*tasks)
        await self._http.aclose()


async def test_rolling_restarts_under_load_fail_no_request_and_lose_no_job(
    start: Start, database_url: str
) -> None:
    apis = [start("service.app"), start("service.app")]
    workers = [start("service.worker"), start("service.worker")]
    await asyncio.gather(*(process.up() for process in (*apis, *workers)))
    balancer = Balancer(apis)
    tasks = [asyncio.create_task(balancer.probe())]
    tasks += [asyncio.create_task(balancer.client(number)) for number in range(12)]
    for _ in range(2):
        await asyncio.sleep(0.5)
        old_api, old_worker = balancer.instances[0], workers.pop(0)
        old_api.popen.send_signal(signal.SIGTERM)
        old_worker.popen.send_signal(signal.SIGTERM)
        assert [await old_api.ended(), await old_worker.ended()] == [0, 0]
        balancer.instances.remove(old_api)
        fresh = start("service.app"), start("service.worker")
        await asyncio.gather(*(process.up() for process in fresh))
        balancer.ready[fresh[0].url] = True
        balancer.instances.append(fresh[0])
        workers.append(fresh[1])
        for process in (old_api, old_worker):
            assert process.events()[-1] == "process.closing"
            assert "Traceback" not in process.log.read_text()
    await asyncio.sleep(0.3)
    await balancer.end(tasks)
    assert balancer.failures == []
    assert len(balancer.created) > 100
    assert len(balancer.served) == 4
    assert balancer.closed > 0
    connection = await asyncpg.connect(database_url)

    async def all_settled() -> bool:
        query = "SELECT public_id::text FROM transaction WHERE status = 'settled' AND version = 2"
        return {row[0] for row in await connection.fetch(query)} == set(balancer.created)

    try:
        await eventually(all_settled, within=40, every=0.1)
    finally:
        await connection.close()
    print(f"\n{len(balancer.created)} created, 0 failed, {balancer.closed} told to close")


async def test_a_second_signal_ends_at_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APP_DRAIN_NOTICE_SECONDS", "30")
    api = start("service.app")
    await api.up()
    api.popen.send_signal(signal.SIGTERM)
    await eventually(lambda: stopping(api))
    api.popen.send_signal(signal.SIGINT)
    assert await api.ended(5) == 130
    assert "process.closing" not in api.events()


async def stopping(process: Process) -> bool:
    return "process.stopping" in process.events()


async def test_a_request_that_never_ends_does_not_hold_up_the_drain_for_ever(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_DRAIN_SECONDS", "1")
    api = start("service.app")
    await api.up()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n")
    await writer.drain()
    await asyncio.sleep(0.2)
    api.popen.send_signal(signal.SIGTERM)
    assert await api.ended(15) == 0
    assert "http.drain_cut_off" in api.events()
    left = await reader.read()
    assert left == b"" or left.startswith(b"HTTP/1.1 5")
    writer.close()


async def test_all_closes_in_reverse_order_of_opening(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def observe(kind: type, name: str) -> None:
        original = getattr(kind, name)

        async def observed(self: object, *args: object, **given: object) -> None:
            order.append(kind.__name__)
            await original(self, *args, **given)

        monkeypatch.setattr(kind, name, observed)

    observe(Telemetry, "close")
    observe(EventLoopMonitor, "stop")
    observe(Database, "close")
    observe(EventBus, "close")
    expected = ["EventBus", "Database", "EventLoopMonitor", "Telemetry"]

    async with open_container(configure(), "api"):
        assert order == []
    assert order == expected

    order.clear()

    async def broken() -> None:
        async with open_container(configure(), "api"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await broken()
    assert order == expected
