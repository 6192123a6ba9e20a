"""The real processes: start, stop, crash, and what they say when they cannot start."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import orjson
import psutil
import pytest

from service.settings import Settings
from tests.integration.service.harness import BODY, eventually
from tests.ports import free_port

Environment = Callable[..., dict[str, str]]
Configure = Callable[..., Settings]
Start = Callable[[str], "Process"]
SECRET = "n0-0ne-shall-see-this-0123456789-abcdef"


@dataclass
class Process:
    """A process of the service and where it answers."""

    popen: "subprocess.Popen[bytes]"
    url: str
    log: Path

    async def up(self, path: str = "/health/ready") -> None:
        async with httpx.AsyncClient() as http:

            async def look() -> bool:
                assert self.popen.poll() is None, self.log.read_text()
                try:
                    return (await http.get(self.url + path)).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(look, every=0.05)

    async def ended(self, within: float = 20) -> int:
        return await asyncio.to_thread(self.popen.wait, within)

    def events(self) -> list[str]:
        return [
            orjson.loads(line)["event"] for line in self.log.read_bytes().splitlines() if line[:1] == b"{"
        ]


@pytest.fixture
def start(configure: Configure, environment: Environment, repository: str, tmp_path: Path) -> Iterator[Start]:
    """Starts `service.app` or `service.worker` on this test's servers; what is left is killed at the end."""
    configure(QUEUE_LEASE_SECONDS=1, TELEMETRY_LOG_SINK="stdout", PYTHONPATH=repository)
    environment(PYTHONPATH=repository, APP_DRAIN_SECONDS=15, DATABASE_STATEMENT_TIMEOUT_MS=20_000)
    started: list[Process] = []

    def launch(module: str) -> Process:
        port = free_port()
        log = tmp_path / f"{module}-{len(started)}.log"
        environment(**{"APP_PORT" if module == "service.app" else "WORKER_PORT": port})
        with log.open("wb") as output:
            popen = subprocess.Popen([sys.executable, "-m", module], stdout=output, stderr=subprocess.STDOUT)
        started.append(Process(popen, f"http://127.0.0.1:{port}", log))
        return started[-1]

    yield launch
    for process in started:
        if process.popen.poll() is None:
            process.popen.kill()
            process.popen.wait()


@asynccontextmanager
async def table_locked(url: str) -> AsyncIterator[None]:
    """Nobody gets to write transactions inside the block."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE transaction IN EXCLUSIVE MODE")
            yield
    finally:
        await connection.close()


async def waiting_for_lock(url: str) -> None:
    connection = await asyncpg.connect(url)

    async def look() -> bool:
        waiting = "wait_event_type = 'Lock' AND datname = current_database()"
        query = f"SELECT count(*) FROM pg_stat_activity WHERE {waiting}"  # noqa: S608 - no input in it
        return bool(await connection.fetchval(query))

    try:
        await eventually(look)
    finally:
        await connection.close()


async def settled(http: httpx.AsyncClient, api: Process, transaction_id: str) -> dict[str, object]:
    async def look() -> dict[str, object] | None:
        data = (await http.get(f"{api.url}/v1/transactions/{transaction_id}")).json()["data"]
        return data if data["status"] == "settled" else None

    return await eventually(look)


async def test_the_whole_way_through_real_processes(start: Start) -> None:
    api, worker = start("service.app"), start("service.worker")
    await asyncio.gather(api.up(), worker.up())
    async with httpx.AsyncClient() as http:
        answers = await asyncio.gather(
            *(http.post(f"{api.url}/v1/transactions", json=BODY | {"reference": f"r{n}"}) for n in range(30))
        )
        assert {answer.status_code for answer in answers} == {201}
        for answer in answers:
            assert (await settled(http, api, answer.json()["data"]["id"]))["version"] == 2
        text = (await http.get(f"{worker.url}/metrics")).text
        assert 'yardstick_jobs_done_total{job_name="transaction.settlement.v1"} 30.0' in text
        assert (await http.get(f"{worker.url}/v1/transactions")).status_code == 404
        huge = await http.post(f"{api.url}/v1/transactions", content=b" " * 3_000_000)
        assert huge.status_code == 413
    for process in (api, worker):
        assert psutil.Process(process.popen.pid).children() == []
        process.popen.terminate()
    assert [await api.ended(), await worker.ended()] == [0, 0]
    assert worker.events().count("transaction.settled") == 30
    for process in (api, worker):
        assert process.events()[-1] == "process.closing"
        assert "Traceback" not in process.log.read_text()


async def test_sigterm_finishes_requests_in_flight(start: Start, database_url: str) -> None:
    api = start("service.app")
    await api.up()
    async with httpx.AsyncClient(timeout=30) as http:
        async with table_locked(database_url):
            request = asyncio.create_task(http.post(f"{api.url}/v1/transactions", json=BODY))
            await waiting_for_lock(database_url)
            api.popen.terminate()

            async def closed() -> bool:
                try:
                    async with httpx.AsyncClient() as other:
                        await other.get(f"{api.url}/health/live")
                except httpx.TransportError:
                    return True
                return False

            await eventually(closed)
            assert not request.done()
        assert (await request).status_code == 201
    assert await api.ended() == 0


async def test_not_ready_while_the_port_is_still_open(start: Start, environment: Environment) -> None:
    environment(APP_DRAIN_NOTICE_SECONDS=30)
    api = start("service.app")
    await api.up()
    async with httpx.AsyncClient() as http:
        api.popen.terminate()

        async def look() -> httpx.Response | None:
            answer = await http.get(f"{api.url}/health/ready")
            return answer if answer.status_code == 503 else None

        answer = await eventually(look)
        assert answer.json()["message"] == "Draining"
        assert (await http.get(f"{api.url}/health/live")).status_code == 200
    api.popen.send_signal(signal.SIGINT)
    assert await api.ended(5) == 130


@pytest.mark.parametrize("module", ["service.app", "service.worker"])
async def test_a_taken_port_is_one_line_and_exit_code_1(start: Start, module: str) -> None:
    first = start(module)
    await first.up()
    port = first.url.rpartition(":")[2]
    variable = "APP_PORT" if module == "service.app" else "WORKER_PORT"
    second = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", module],
        env=os.environ | {variable: port},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 1
    assert second.stderr == f"cannot listen on 127.0.0.1:{port}: Address already in use\n"
    await first.up()


async def test_sigterm_finishes_jobs_in_flight(start: Start, database_url: str) -> None:
    api, worker = start("service.app"), start("service.worker")
    await asyncio.gather(api.up(), worker.up())
    async with httpx.AsyncClient() as http:
        transaction_id = await pending_in_worker(http, api, worker, database_url)
        assert (await settled(http, api, transaction_id))["version"] == 2
    assert await worker.ended() == 0
    assert worker.events().count("job.done") == 1


async def pending_in_worker(http: httpx.AsyncClient, api: Process, worker: Process, database_url: str) -> str:
    """Has the worker told to stop while it holds a job that waits; the lock is gone at the end."""
    connection = await asyncpg.connect(database_url)
    try:
        worker.popen.send_signal(signal.SIGSTOP)
        answer = await http.post(f"{api.url}/v1/transactions", json=BODY)
        async with connection.transaction():
            await connection.execute("LOCK TABLE transaction IN EXCLUSIVE MODE")
            worker.popen.send_signal(signal.SIGCONT)
            await waiting_for_lock(database_url)
            worker.popen.terminate()
            await asyncio.sleep(0.5)
            assert worker.popen.poll() is None
    finally:
        await connection.close()
    transaction_id: str = answer.json()["data"]["id"]
    return transaction_id


async def test_the_job_of_a_killed_worker_runs_again(start: Start, database_url: str) -> None:
    api, worker = start("service.app"), start("service.worker")
    await asyncio.gather(api.up(), worker.up())
    async with httpx.AsyncClient() as http:
        worker.popen.send_signal(signal.SIGSTOP)
        answer = await http.post(f"{api.url}/v1/transactions", json=BODY)
        async with table_locked(database_url):
            worker.popen.send_signal(signal.SIGCONT)
            await waiting_for_lock(database_url)
            worker.popen.kill()
            await worker.ended()
        other = start("service.worker")
        assert (await settled(http, api, answer.json()["data"]["id"]))["version"] == 2
        other.popen.terminate()
        assert await other.ended() == 0
        assert other.events().count("transaction.settled") == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {},
            [
                "DATABASE_URL: is missing; example: DATABASE_URL=",
                "REDIS_URL: is missing; example: REDIS_URL=",
            ],
        ),
        (
            {"DATABASE_URL": f"mysql://u:{SECRET}@h/d", "REDIS_URL": f"redis://:{SECRET}@h:99999/0"},
            ["DATABASE_URL: must start with postgresql://", "REDIS_URL: is not a URL"],
        ),
        (
            {
                "DATABASE_URL": f"postgresql://u:{SECRET}@h/d",
                "REDIS_URL": f"redis://:{SECRET}@h/zero",
                "DATABASE_POOL_SIZE": "many",
                "APP_PORT": "70000",
                "APP_ENV": "prod",
                "TELEMETRY_SAMPLE_RATIO": "1.5",
                "QUEUE_ENGINE": "kafka",
                "DATABASE_POOLSIZE": "5",
            },
            [
                "APP_ENV: Input should be 'development', 'staging', 'production' or 'test'; example: ",
                "APP_PORT: Input should be less than or equal to 65535; example: APP_PORT=8000",
                "DATABASE_POOL_SIZE: Input should be a valid integer",
                "REDIS_URL: database must be a number",
                "QUEUE_ENGINE: Input should be 'redis'",
                "TELEMETRY_SAMPLE_RATIO: Input should be less than or equal to 1",
                "DATABASE_POOLSIZE: is not a setting (found in the environment); did you mean DATABASE_POOL",
            ],
        ),
        (
            {
                "APP_ENV": "production",
                "APP_DEBUG": "true",
                "DATABASE_URL": "postgresql://u:change-me-change-me-change-me-change-me@h/d",
                "REDIS_URL": "redis://:short-one@h/0",
            },
            [
                "APP_DEBUG: is refused in production",
                "DATABASE_URL: password is a placeholder, refused in production",
                "REDIS_URL: password is shorter than 32 characters, refused in production",
                "FILES_SIGNING_KEY: is missing",
            ],
        ),
    ],
    ids=["missing", "malformed", "several", "production"],
)
@pytest.mark.parametrize("module", ["service.app", "service.worker", "service.scheduler"])
def test_wrong_settings_are_one_line_each(
    environment: Environment, repository: str, module: str, changes: dict[str, str], expected: list[str]
) -> None:
    environment(PYTHONPATH=repository, **changes)
    run = subprocess.run(
        [sys.executable, "-m", module], capture_output=True, text=True, timeout=30, check=False
    )
    assert run.returncode == 78
    assert run.stdout == ""
    lines = run.stderr.splitlines()
    assert len(lines) == len(expected), run.stderr
    for line, beginning in zip(lines, expected, strict=True):
        assert line.startswith(beginning)
    assert SECRET not in run.stderr
    assert "short-one" not in run.stderr
