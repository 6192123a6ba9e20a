"""Files through a process: its memory, clients that leave, paths as no client library sends them."""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from compose.binaries import ProgramUnavailable
from tests.integration.service.harness import eventually
from tests.ports import free_port
from tests.s3_server import s3_server

CONTENT = "/v1/files/content"
MB = 1 << 20
FILE_MB = 200
GROWTH_MB = 150

Environment = Callable[..., dict[str, str]]


@dataclass
class Api:
    """The service as a process; it needs no database for files."""

    url: str
    port: int
    process: psutil.Process
    http: httpx.AsyncClient
    log: Path

    async def raw(self, head: str, body: bytes = b"") -> bytes:
        """The answer to bytes that no client library would send."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(head.encode("latin-1") + b"\r\nHost: test\r\nConnection: close\r\n\r\n" + body)
        await writer.drain()
        answer = await reader.read()
        writer.close()
        return answer

    async def metric(self, series: str) -> float:
        lines = (await self.http.get("/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(series))


@asynccontextmanager
async def api(environment: Environment, folder: Path, **variables: object) -> AsyncIterator[Api]:
    port = free_port()
    env = environment(
        APP_ENV="test", APP_PORT=port, APP_DRAIN_NOTICE_SECONDS=0, APP_DRAIN_SECONDS=2,
        DATABASE_URL="postgresql://nobody:nothing@127.0.0.1:1/none", REDIS_URL="redis://127.0.0.1:1/0",
        TELEMETRY_OTLP_ENDPOINT="", TELEMETRY_LOG_SINK="file", TELEMETRY_LOG_FILE=folder / "api.jsonl",
        FILES_ROOT=folder / "root", FILES_MAX_BYTES=(FILE_MB + 1) * MB, **variables,
    )  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service.app",
        env=os.environ | env | {"PYTHONPATH": str(Path(__file__).parents[3])},
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=120) as http:

            async def up() -> bool:
                try:
                    return (await http.get("/health/live")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(up, every=0.1)
            yield Api(str(http.base_url), port, psutil.Process(process.pid), http, folder / "api.jsonl")
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def local_api(environment: Environment, tmp_path: Path) -> AsyncIterator[Api]:
    async with api(environment, tmp_path) as running:
        yield running


def resident(process: psutil.Process) -> tuple[int, int]:
    """Memory now, and at its highest so far, in MB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["VmRSS"].split()[0]) // 1024, int(fields["VmHWM"].split()[0]) // 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
@pytest.mark.parametrize("engine", ["local", "s3"])
async def test_a_file_of_200_mb_goes_in_and_out_in_constant_memory(
    environment: Environment, tmp_path: Path, engine: str
) -> None:
    async def passes(**variables: object) -> None:
        async with api(environment, tmp_path, **variables) as running:
            await there_and_back(running)

    if engine == "local":
        await passes()
        return
    try:
        with s3_server(tmp_path / "s3") as server:
            await passes(**server.settings(server.bucket("files")))
    except ProgramUnavailable as error:
        pytest.skip(str(error))


async def there_and_back(running: Api) -> None:
    block = (b"0123456789abcdef" * (MB // 16))[:MB]
    sent, got = hashlib.sha256(), hashlib.sha256()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(FILE_MB):
            sent.update(block)
            yield block

    # The first request imports and opens what later ones share.
    assert (await running.http.put(f"{CONTENT}/warm-up", content=b"hello")).status_code == 201
    before, _ = resident(running.process)
    answer = await running.http.put(f"{CONTENT}/big", content=body())
    assert answer.status_code == 201, answer.text
    async with running.http.stream("GET", f"{CONTENT}/big") as download:
        assert download.headers["content-length"] == str(FILE_MB * MB)
        number = 0
        async for chunk in download.aiter_raw():
            got.update(chunk)
            number += 1
            if number % 400 == 0:
                # A reader that is slower than the store: what it has not read must not pile up.
                await asyncio.sleep(0.02)
    _, highest = resident(running.process)
    assert answer.json()["data"]["sha256"] == sent.hexdigest() == got.hexdigest()
    sys.stdout.write(f"\nmemory: {before} MB before, {highest} MB at most\n")
    assert highest - before < GROWTH_MB


async def test_a_client_that_leaves_leaves_nothing_behind(local_api: Api, tmp_path: Path) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", local_api.port)
    writer.write(f"PUT {CONTENT}/half HTTP/1.1\r\nHost: test\r\nContent-Length: {20 * MB}\r\n\r\n".encode())
    writer.write(b"a" * (5 * MB))
    await writer.drain()
    incoming = tmp_path / "root" / ".incoming"

    async def under_way() -> bool:
        return incoming.is_dir() and any(path.stat().st_size >= MB for path in incoming.iterdir())

    await eventually(under_way)
    writer.transport.abort()

    async def gone() -> bool:
        return not any(incoming.iterdir())

    await eventually(gone)
    assert (await local_api.http.get(f"{CONTENT}/half")).status_code == 404
    lines = [line for line in local_api.log.read_text().splitlines() if "PUT /v1/files" in line]
    assert ['"status":499' in line for line in lines] == [True]
    assert await local_api.metric('yardstick_files_operations_total{operation="put",outcome="failed"}') == 1


async def test_a_client_that_stops_reading_frees_the_file(local_api: Api, tmp_path: Path) -> None:
    assert (await local_api.http.put(f"{CONTENT}/big", content=b"a" * (50 * MB))).status_code == 201
    reader, writer = await asyncio.open_connection("127.0.0.1", local_api.port)
    writer.write(f"GET {CONTENT}/big HTTP/1.1\r\nHost: test\r\n\r\n".encode())
    await reader.readexactly(MB)
    writer.transport.abort()
    big = str(tmp_path / "root" / "big")

    async def closed() -> bool:
        return all(file.path != big for file in local_api.process.open_files())

    await eventually(closed)
    assert await local_api.metric('yardstick_files_operations_total{operation="read",outcome="failed"}') == 1


SPELLINGS = [
    "..",
    "../secret",
    "..%2fsecret",
    "%2e%2e/secret",
    "%2e%2e%2fsecret",
    "%252e%252e%252fsecret",
    "..%5csecret",
    "..\\secret",
    "a/../../secret",
    "a/..%2f..%2fsecret",
    "%2fetc%2fpasswd",
    "/etc/passwd",
    "%00",
    "a%00.txt",
    "a%0ab",
    "%c0%ae%c0%ae/secret",
    "%ef%bc%8e%ef%bc%8e/secret",
    "a%e2%88%95..%e2%88%95secret",
    ".incoming/x",
    "a//b",
    "a/",
    "a/./b",
    "con",
    "nul.txt",
    "C:%5cwindows",
    "C:/windows",
    "a" * 600,
    "a/" * 300,
    "..;/secret",
    "%uff0e%uff0e/secret",
]


async def test_no_spelling_leaves_the_root(local_api: Api, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    for spelling in SPELLINGS:
        for method, body in (("GET", b""), ("HEAD", b""), ("DELETE", b""), ("PUT", b"hello")):
            head = f"{method} {CONTENT}/{spelling} HTTP/1.1\r\nContent-Length: {len(body)}"
            answer = await local_api.raw(head, body)
            # A newline matches no route; a path that no URL may hold is refused by the server itself.
            assert answer.split(b" ", 2)[1] in (b"422", b"404", b"400"), (method, spelling, answer[:200])
            assert b"secret" not in answer.partition(b"\r\n\r\n")[2]
        signed = await local_api.raw(f"GET /v1/files/signed/{spelling}?expires=1&signature=x HTTP/1.1")
        assert signed.split(b" ", 2)[1] in (b"403", b"404", b"400"), (spelling, signed[:200])
    assert (tmp_path / "secret").read_text() == "secret"
    assert not [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
