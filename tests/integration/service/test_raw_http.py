"""Bytes that no HTTP client would send. Nothing of it may harm the next request, or the process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import orjson
import pytest

from service.settings import Settings
from tests.integration.service.launched import Process

HOST = b"\r\nhost: x\r\n"


@pytest.fixture
async def api(configure: Callable[..., Settings], tmp_path: Path) -> AsyncIterator[Process]:
    configure(TELEMETRY_LOG_SINK="stdout")
    process = Process("service.app", tmp_path)
    await process.up()
    yield process
    process.end()


async def spoken(url: str, sent: bytes) -> bytes:
    """All that comes back before the connection is closed, or nothing more comes for a second."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    found = b""
    try:
        writer.write(sent)
        await writer.drain()
        while data := await asyncio.wait_for(reader.read(65_536), 1):
            found += data
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return found


REFUSED = {
    "garbage": b"\x00\xff\x16\x03\x01 no http at all\r\n\r\n",
    "version": b"GET /health/live HTTP/9.9" + HOST + b"\r\n",
    "no path": b"GET HTTP/1.1" + HOST + b"\r\n",
    "bad header": b"GET /health/live HTTP/1.1" + HOST + b"bad header: \x00\r\n\r\n",
    "negative length": b"POST /v1/transactions HTTP/1.1" + HOST + b"content-length: -1\r\n\r\n",
    "two lengths": b"POST /v1/transactions HTTP/1.1"
    + HOST
    + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "huge header": b"GET /health/live HTTP/1.1" + HOST + b"x: " + b"y" * 2_000_000 + b"\r\n\r\n",
    "many headers": b"GET /health/live HTTP/1.1" + HOST + b"x: y\r\n" * 5_000 + b"\r\n",
    "huge path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1" + HOST + b"\r\n",
}


async def test_what_is_no_http_is_refused_and_harms_nobody(api: Process) -> None:
    for name, sent in REFUSED.items():
        answer = await spoken(api.url, sent)
        assert answer == b"" or answer.split(b" ", 2)[1][:1] == b"4", (name, answer[:200])
        async with httpx.AsyncClient() as http:
            assert (await http.get(f"{api.url}/health/live")).status_code == 200
    assert api.popen.poll() is None
    assert "Traceback" not in api.log.read_text()


async def test_a_body_that_contradicts_its_chunks_is_no_success(api: Process) -> None:
    head = b"POST /v1/transactions HTTP/1.1" + HOST + b"transfer-encoding: chunked\r\n\r\n"
    for body in (b"ZZZ\r\n{}\r\n0\r\n\r\n", b"5\r\n{}\r\n", b"FFFFFFFFFFFFFFFFF\r\n"):
        answer = await spoken(api.url, head + body)
        assert b" 201 " not in answer
    assert '"level":"error"' not in api.log.read_text()


async def test_odd_but_legal_requests_are_answered(api: Process) -> None:
    old = await spoken(api.url, b"GET /health/live HTTP/1.0\r\n\r\n")
    assert old.startswith(b"HTTP/1.0 200")
    absolute = await spoken(
        api.url, b"GET http://x/health/live HTTP/1.1" + HOST + b"connection: close\r\n\r\n"
    )
    assert absolute.startswith(b"HTTP/1.1 200")
    unknown = await spoken(api.url, b"BREW /v1/transactions HTTP/1.1" + HOST + b"connection: close\r\n\r\n")
    head, _, body = unknown.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405")
    assert b"allow: GET, HEAD, POST, OPTIONS" in head
    assert orjson.loads(body)["error"]["code"] == "method_not_allowed"
    two = await spoken(api.url, (b"HEAD /v1/transactions HTTP/1.1" + HOST + b"\r\n") * 2)
    assert two.count(b"HTTP/1.1 200") == 2
    assert b"statusCode" not in two
