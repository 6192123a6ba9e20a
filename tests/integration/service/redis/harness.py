"""A store with its telemetry, and a way to the server that loses answers on purpose."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from observability import Telemetry, TelemetryConfig
from service.infra.redis import RedisStore, open_redis
from service.settings import RedisSettings


@dataclass
class Kit:
    """One process's store and what it measures."""

    store: RedisStore
    telemetry: Telemetry
    exporter: InMemorySpanExporter

    def metric(self, name: str, labels: Mapping[str, str] | None = None) -> float:
        return self.telemetry.registry.get_sample_value(f"yardstick_{name}", dict(labels or {})) or 0.0

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())


@asynccontextmanager
async def opened(url: str, folder: Path, **settings: object) -> AsyncIterator[Kit]:
    """A store on a server."""
    exporter = InMemorySpanExporter()
    telemetry = Telemetry.start(
        TelemetryConfig("test", namespace="yardstick", log_sink="file", log_file=folder / "store.jsonl")
    )
    assert telemetry.provider is not None
    telemetry.provider.add_span_processor(SimpleSpanProcessor(exporter))
    group = RedisSettings.model_validate({"url": url, "key_prefix": "t:", **settings})
    client = open_redis(group, name="test")
    store = RedisStore(client, group, telemetry)
    try:
        yield Kit(store, telemetry, exporter)
    finally:
        await store.close()
        await client.aclose()
        await telemetry.close(timeout=1)


@dataclass
class Lossy:
    """A way to the server. `lose` answers to what holds a text: the server has run it, the line is cut."""

    url: str
    text: bytes = b""
    left: int = 0
    lost: int = 0
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def lose(self, text: bytes, times: int) -> None:
        self.text, self.left = text, times


@asynccontextmanager
async def lossy(url: str) -> AsyncIterator[Lossy]:
    parts = urlsplit(url)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream = await asyncio.open_connection(parts.hostname, parts.port)
        way._writers += (writer, upstream)
        doomed = False

        async def forth() -> None:
            nonlocal doomed
            while data := await reader.read(65536):
                if way.left and way.text in data:
                    way.left -= 1
                    doomed = True
                upstream.write(data)

        async def back() -> None:
            while data := await upstream_reader.read(65536):
                if doomed:
                    way.lost += 1
                    return
                writer.write(data)

        tasks = [asyncio.create_task(forth()), asyncio.create_task(back())]
        _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        with suppress(OSError):
            writer.close()
            upstream.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    way = Lossy(parts._replace(netloc=f":{parts.password}@127.0.0.1:{port}").geturl())
    try:
        yield way
    finally:
        for writer in way._writers:
            writer.close()
        server.close()
