"""One request and its answer: what passes, and what is recorded of it at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from opentelemetry.trace import Span, StatusCode

from observability import logs
from observability.context import LOG_KEYS, RequestContext
from observability.exceptions import message, span_attributes, structured, type_name
from observability.metrics import HttpMetrics
from observability.routing import UNMATCHED, route_template

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOGGER = "observability.asgi"
CLIENT_CLOSED = 499
_PATH_LIMIT = 1_024
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"})
_log = logs.get_logger(__name__)


class Exchange:
    """One request and its answer, as seen passing through `receive` and `send`."""

    __slots__ = (
        "_answer",
        "_context",
        "_disconnected",
        "_ended",
        "_error",
        "_finished",
        "_headers",
        "_ids",
        "_method",
        "_metrics",
        "_receive",
        "_sampled",
        "_scope",
        "_send",
        "_span",
        "_started",
        "_status",
        "_streaming",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        metrics: HttpMetrics,
        span: Span,
        context: RequestContext,
        method: str,
        started: int,
        request_id: bytes,
    ) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._metrics, self._span, self._context = metrics, span, context
        self._method, self._started = method, started
        self._headers = [(b"x-request-id", request_id)]
        self._ids: tuple[str, str] | None = None
        self._sampled = False
        trace_context = span.get_span_context()
        if trace_context.is_valid:
            flags = trace_context.trace_flags
            trace_id, span_id = f"{trace_context.trace_id:032x}", f"{trace_context.span_id:016x}"
            self._ids, self._sampled = (trace_id, span_id), bool(flags & 1)
            self._headers.append((b"traceresponse", f"00-{trace_id}-{span_id}-{flags:02x}".encode("ascii")))
        self._answer: Iterable[tuple[bytes, bytes]] | None = None
        self._status = self._ended = 0
        self._finished = self._disconnected = self._streaming = False
        self._error: BaseException | None = None

    async def receive(self) -> Message:
        event = await self._receive()
        if event["type"] == "http.disconnect" and not self._ended:
            self._disconnected = True
        return event

    async def send(self, event: Message) -> None:
        kind = event["type"]
        if kind == "http.response.start":
            self._status = event["status"]
            # A new list: the application may keep and reuse its own.
            event = {**event, "headers": [*event.get("headers", ()), *self._headers]}
            self._answer = event["headers"]
            await self._send(event)
        elif kind == "http.response.body" and not event.get("more_body", False) and not self._streaming:
            await self._send(event)
            self._ended = time.time_ns()
            # A server error's exception is still on its way up. Anything else is over for the client, and
            # background tasks that follow are not part of it.
            if self._status < 500:
                self.finish()
        else:
            await self._send(event)
            if self._answer is not None:
                self._first_part(self._answer)
                self._answer = None

    def _first_part(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Of an event stream the answer is there now: how long it stays open is the client's wish."""
        if any(
            name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
            for name, value in headers
        ):
            self._streaming = True
            self._ended = time.time_ns()
            self.finish()

    def failed(self, error: BaseException) -> None:
        if self._streaming and isinstance(error, Exception):
            _log.error("http.stream_failed", exc_info=error)
        self._error = error
        if not self._status:
            left = self._disconnected or isinstance(error, asyncio.CancelledError)
            self._status = CLIENT_CLOSED if left else 500

    def finish(self) -> None:
        """Record the request, once. A fault in here is logged: it must not become the client's."""
        if self._finished:
            return
        self._finished = True
        self._metrics.active -= 1
        try:
            self._record()
        except Exception:  # noqa: BLE001 - see above
            _log.exception("telemetry.fault")

    def _record(self) -> None:
        ended = self._ended or time.time_ns()
        if not self._status:
            # The application returned without an answer: the client left, or the server makes it a 500.
            self._status = CLIENT_CLOSED if self._disconnected else 500
        status, method = self._status, self._method
        route = route_template(self._scope, status)
        action = f"{method} {route}"
        duration = max(0, ended - self._started)
        exemplar = None
        if self._sampled and self._ids:
            exemplar = {"trace_id": self._ids[0], "span_id": self._ids[1]}
        self._metrics.child(method, route, status).observe(duration / 1e9, exemplar)
        if self._span.is_recording():
            self._end_span(route, status, ended)
        self._access_line(status, duration, ended, action)

    def _broke(self) -> BaseException | None:
        """The exception, unless it only says that the client left."""
        return None if self._disconnected or self._status == CLIENT_CLOSED else self._error

    def _end_span(self, route: str, status: int, ended: int) -> None:
        span, scope, context, method = self._span, self._scope, self._context, self._method
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.response.status_code": status,
            "url.path": scope["path"][:_PATH_LIMIT],
            "url.scheme": scope.get("scheme", "http"),
            "client.address": context.ip,
            "user_agent.original": context.user_agent,
        }
        if route is not UNMATCHED:
            attributes["http.route"] = route
            span.update_name(f"{method if method in METHODS else 'HTTP'} {route}")
        if method not in METHODS:
            attributes["http.request.method_original"] = scope["method"][:32]
        if context.user_id:
            attributes["user.id"] = context.user_id
        error = self._broke()
        if error is not None:
            attributes["error.type"] = type_name(error)
            span.add_event("exception", span_attributes(error))
            span.set_status(StatusCode.ERROR, message(error))
        elif status >= 500:
            attributes["error.type"] = str(status)
            span.set_status(StatusCode.ERROR)
        span.set_attributes(attributes)
        span.end(ended)

    def _access_line(self, status: int, duration: int, ended: int, action: str) -> None:
        level = 40 if status >= 500 else 20
        out = logs.pipeline()
        if level < out.level:
            return
        record: dict[str, Any] = {
            "timestamp": out.timestamp(ended),
            "level": "error" if level == 40 else "info",
            "event": "http.request",
            "logger": LOGGER,
            **out.static,
        }
        if self._ids:
            record["traceId"], record["spanId"] = self._ids
        context = self._context
        for attribute, key in LOG_KEYS:
            if value := getattr(context, attribute):
                record[key] = value
        record["action"] = action
        record["duration"] = duration / 1e6
        record["status"] = status
        if self._disconnected:
            record["disconnected"] = True
        error = self._broke()
        if error is not None:
            record["exception"] = structured(error)
        out.write(record)
