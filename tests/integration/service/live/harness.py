"""The service as real processes, and clients of its streams over real sockets."""

import asyncio
import os
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx
import orjson
import psutil
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.events import Event as WsEvent

from service.features.live.access import USER_HEADER
from service.infra.event_bus import Event
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[4]


def allow_files(wanted: int) -> None:
    """Raise the limit of open files as far as the system lets us. What we start inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))


def happened(subject: str, *, number: int = 0, user: str = "", **data: Any) -> Event:
    return Event("transaction.settled", {"number": number, **data}, subject=subject, user=user)


@dataclass
class Process:
    """One process of the service."""

    port: int
    handle: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def rss(self) -> int:
        memory: int = psutil.Process(self.handle.pid).memory_info().rss
        return memory

    async def metric(self, name: str, **labels: str) -> float:
        """The value of a series on /metrics; 0 when it is not there."""
        async with httpx.AsyncClient() as http:
            text = (await http.get(f"{self.url}/metrics")).text
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in text.splitlines():
            series, _, value = line.rpartition(" ")
            head, _, inside = series.partition("{")
            if head == name and wanted <= set(inside.rstrip("}").split(",")) | {""}:
                return float(value)
        return 0.0

    async def stop(self) -> float:
        """SIGTERM; gives the seconds until it had ended."""
        started = time.monotonic()
        if self.handle.returncode is None:
            self.handle.terminate()
        await asyncio.wait_for(self.handle.wait(), 30)
        return time.monotonic() - started


@asynccontextmanager
async def process(module: str, variables: Mapping[str, str], log: Path) -> AsyncIterator[Process]:
    """`service.app` or `service.worker` in a process of its own, from listening to ended."""
    port = free_port()
    kind = "APP" if module == "service.app" else "WORKER"
    environment = {
        **os.environ,
        **variables,
        "PYTHONPATH": str(ROOT),
        f"{kind}_PORT": str(port),
        "TELEMETRY_LOG_FILE": str(log),
    }
    handle = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, env=environment, cwd=log.parent
    )
    started = Process(port, handle)
    try:
        async with asyncio.timeout(30), httpx.AsyncClient() as http:
            while True:
                assert handle.returncode is None, f"it ended at once; see {log}"
                with suppress(httpx.TransportError):
                    if (await http.get(f"{started.url}/health/live")).status_code == 200:
                        break
                await asyncio.sleep(0.05)
        yield started
    finally:
        await started.stop()


@dataclass
class SseEvent:
    """One dispatched event."""

    name: str
    data: Any
    id: str | None
    retry: int | None


class SseClient:
    """A client that parses as the standard says, remembers the last event ID, and reads as fast as it can."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.events: list[SseEvent] = []
        self.last_id: str | None = None
        self.comments = 0
        self.ended = False
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        url: str,
        *topics: str,
        after: str | None = None,
        user: str = "alice",
        reading: bool = True,
        receive_buffer: int | None = None,
    ) -> Self:
        host, _, port = url.removeprefix("http://").partition(":")
        raw = socket.socket()
        if receive_buffer is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
        client = cls(*await asyncio.open_connection(sock=raw, limit=4096))
        query = "&".join(f"topic={topic}" for topic in topics)
        head = f"GET /v1/stream?{query} HTTP/1.1\r\nHost: x\r\nX-User-Id: {user}\r\n"
        if after is not None:
            head += f"Last-Event-ID: {after}\r\n"
        client.writer.write(f"{head}\r\n".encode())
        client.status = int((await client.reader.readline()).split()[1])
        while line := (await client.reader.readline()).strip().decode():
            name, _, value = line.partition(": ")
            client.headers[name.lower()] = value
        if reading:
            client._task = asyncio.create_task(client._read())
        return client

    async def until(self, number: int, within: float = 20) -> list[int]:
        """Wait for so many events that are no notices; gives their numbers."""
        await self.wait(lambda: len(self.numbers) >= number, within)
        return self.numbers

    async def notice(self, name: str, within: float = 20) -> SseEvent:
        """Wait for a notice of this name; gives the last one."""
        await self.wait(lambda: name in self.names, within)
        return [event for event in self.events if event.name == name][-1]

    async def wait(self, condition: Callable[[], bool], within: float = 20) -> None:
        async with asyncio.timeout(within):
            while not condition():
                assert not self.ended, f"the stream ended: {self.status}, {self.names[-5:]}"
                self._changed.clear()
                await self._changed.wait()

    async def end(self, within: float = 20) -> None:
        """Wait until the server has ended the stream."""
        async with asyncio.timeout(within):
            while not self.ended:
                self._changed.clear()
                await self._changed.wait()

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    @property
    def numbers(self) -> list[int]:
        return [event.data["data"]["number"] for event in self.events if "subject" in event.data]

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        self.writer.close()

    async def _read(self) -> None:
        fields: dict[str, list[str]] = {}
        try:
            async for line in self._lines():
                if line:
                    self.comments += line.startswith(":")
                    self._changed.set()
                    name, _, value = line.partition(": ")
                    fields.setdefault(name, []).append(value)
                    continue
                self._dispatch(fields)
                fields = {}
        finally:
            self.ended = True
            self._changed.set()

    async def _lines(self) -> AsyncIterator[str]:
        """The lines of the body, out of its chunks. Ends with the connection, also in the middle."""
        rest = b""
        with suppress(asyncio.IncompleteReadError, ConnectionError, ValueError):
            while size := int((await self.reader.readline()).strip() or b"0", 16):
                rest += (await self.reader.readexactly(size + 2))[:-2]
                *lines, rest = rest.split(b"\n")
                for line in lines:
                    yield line.decode()

    def _dispatch(self, fields: dict[str, list[str]]) -> None:
        self._changed.set()
        if "data" not in fields:
            return
        identifier = fields.get("id", [None])[-1]
        self.last_id = identifier or self.last_id
        retry = int(fields["retry"][-1]) if "retry" in fields else None
        data = orjson.loads("\n".join(fields["data"]))
        self.events.append(SseEvent(fields.get("event", ["message"])[-1], data, identifier, retry))


async def reached(condition: Callable[[], Awaitable[bool]], within: float = 20) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(within):
        while not await condition():  # noqa: ASYNC110 - it is another process that changes
            await asyncio.sleep(0.02)


class WsClient:
    """A WebSocket client that can also say what it should not."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.protocol = WSConnection(ConnectionType.CLIENT)
        self.messages: list[dict[str, Any]] = []
        self.close_code: int | None = None
        self._events: list[WsEvent] = []

    @classmethod
    async def connect(cls, url: str, *topics: str, after: str = "", user: str = "alice") -> Self:
        """Raises ConnectionRefusedError when the handshake is answered with a status."""
        host, _, port = url.removeprefix("http://").partition(":")
        client = cls(*await asyncio.open_connection(host, int(port)))
        query = "&".join([f"topic={topic}" for topic in topics] + ([f"lastEventId={after}"] if after else []))
        headers = [(USER_HEADER.encode(), user.encode())]
        client.send(Request(host="x", target=f"/v1/stream/ws?{query}", extra_headers=headers))
        answer = await client._next()
        if isinstance(answer, RejectConnection):
            raise ConnectionRefusedError(answer.status_code)
        assert isinstance(answer, AcceptConnection), answer
        return client

    def send(self, event: WsEvent) -> None:
        self.writer.write(self.protocol.send(event))

    def say(self, message: object) -> None:
        self.send(TextMessage(data=orjson.dumps(message).decode()))

    async def next(self, kind: str | None = None, within: float = 20) -> dict[str, Any]:
        """The next message, or the next of a kind. Raises ConnectionError when the server closes."""
        text = ""
        async with asyncio.timeout(within):
            while True:
                event = await self._next()
                if isinstance(event, CloseConnection):
                    self.close_code = event.code
                    raise ConnectionResetError(event.code)
                assert isinstance(event, TextMessage), event
                text += event.data
                if event.message_finished:
                    message: dict[str, Any] = orjson.loads(text)
                    text = ""
                    self.messages.append(message)
                    if kind in (None, message["type"]):
                        return message

    async def closed(self, within: float = 20) -> int | None:
        """Read to the end; gives the close code, None when the connection broke without one."""
        with suppress(ConnectionError):
            while True:
                await self.next(within=within)
        return self.close_code

    async def _next(self) -> WsEvent:
        while not self._events:
            data = await self.reader.read(65_536)
            if not data:
                raise ConnectionResetError("broken off")
            self.protocol.receive_data(data)
            self._events = [e for e in self.protocol.events() if not isinstance(e, Ping | Pong)]
        return self._events.pop(0)

    def close(self) -> None:
        self.writer.close()
