"""What the tests ask of a running telemetry: spans in memory, log lines in a file, metrics as text."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import orjson
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from observability import Telemetry

Headers = list[tuple[bytes, bytes]]


def fail(error: BaseException) -> NoReturn:
    """Raise it, from a frame of its own."""
    raise error


@dataclass
class Answer:
    status: int = 0
    headers: Headers = field(default_factory=list)
    body: bytes = b""
    error: BaseException | None = None

    def header(self, name: str) -> str:
        """The one value of a header; two or none fail the test."""
        (value,) = [value for key, value in self.headers if key == name.encode()]
        return value.decode()


class Harness:
    """What the tests ask of a telemetry in use."""

    def __init__(self, telemetry: Telemetry, log_file: Path) -> None:
        self.telemetry = telemetry
        self._log_file = log_file
        self._memory = InMemorySpanExporter()
        if telemetry.provider is not None:
            telemetry.provider.add_span_processor(SimpleSpanProcessor(self._memory))

    def spans(self) -> list[ReadableSpan]:
        return list(self._memory.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans() if span.name == name]
        return span

    def raw_lines(self) -> list[bytes]:
        return self._log_file.read_bytes().splitlines()

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = [orjson.loads(line) for line in self.raw_lines()]
        return [line for line in lines if not event or line["event"] == event]

    def line(self, event: str) -> dict[str, Any]:
        (line,) = self.lines(event)
        return line

    def metrics(self, prefix: str = "", accept: str = "application/openmetrics-text") -> list[str]:
        text = self.telemetry.exposition(accept)[0].decode()
        return [line for line in text.splitlines() if line.startswith(prefix)]

    def sample(self, name: str, **labels: str) -> float | None:
        return self.telemetry.registry.get_sample_value(name, labels)


async def request(
    app: Callable[..., Awaitable[None]],
    path: str = "/",
    method: str = "GET",
    headers: Iterable[tuple[str, str | bytes]] = (),
    *,
    events: list[dict[str, Any]] | None = None,
    on_send: Callable[[MutableMapping[str, Any]], Awaitable[None]] | None = None,
) -> Answer:
    """One ASGI request. `events` are what `receive` gives, one by one; an error is kept, not raised."""
    answer = Answer()
    incoming = iter(events or [{"type": "http.request", "body": b"", "more_body": False}])
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [
            (name.lower().encode(), value if isinstance(value, bytes) else value.encode())
            for name, value in headers
        ],
        "client": ("203.0.113.7", 40000),
        "server": ("127.0.0.1", 8000),
    }

    async def receive() -> dict[str, Any]:
        return next(incoming, {"type": "http.disconnect"})

    async def send(event: MutableMapping[str, Any]) -> None:
        if on_send is not None:
            await on_send(event)
        if event["type"] == "http.response.start":
            answer.status, answer.headers = event["status"], list(event["headers"])
        else:
            answer.body += event.get("body", b"")

    try:
        await app(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - handed to the test with the answer
        answer.error = error
    return answer
