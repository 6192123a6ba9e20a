"""One pass over each request: one span, one observation with its exemplar, one access line."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode

from observability import logs
from observability.context import LOG_KEYS, RequestContext, current_context
from observability.exceptions import message, stacktrace, structured, type_name
from observability.metrics import exemplar
from observability.redaction import redact_text
from observability.setup import Telemetry
from observability.tracing import parse_traceparent, traceparent

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

EXCLUDED = frozenset({"/metrics", "/health", "/health/live", "/health/ready"})
UNMATCHED = "/{unmatched}"
CLIENT_CLOSED = 499
_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"}
)
_WANTED = frozenset({b"x-request-id", b"traceparent", b"tracestate", b"user-agent"})
_ID_ALPHABET = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+="
_ID_LIMIT = 128
_AGENT_LIMIT = 256
_AGENT_CACHE = 1_024
_ROOT = Context()


class TelemetryMiddleware:
    """ASGI middleware, to be put around the whole application.

    Around, not inside (`app = TelemetryMiddleware(app, telemetry)`): then the answer that an outer error layer
    gives to an unhandled exception is the one that is counted and carries the headers. Inside (`add_middleware`)
    the exception counts as a 500 all the same.

    Requests for a path in `exclude` get their `X-Request-ID` and nothing else.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry, *, exclude: Iterable[str] = EXCLUDED) -> None:
        self.app = app
        self._telemetry = telemetry
        self._exclude = frozenset(exclude)
        self._enabled = telemetry.enabled
        self._tracer = telemetry.tracer
        self._metrics = telemetry.metrics.http
        self._agents: dict[bytes, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        wanted: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in _WANTED:
                # A second traceparent makes both worthless; of the others the first counts.
                wanted[name] = b"" if name in wanted and name == b"traceparent" else wanted.get(name, value)
        request_id = _request_id(wanted.get(b"x-request-id"))
        client = scope.get("client")
        context = RequestContext(
            request_id.decode("ascii"),
            ip=client[0] if client else "",
            user_agent=self._agent(wanted.get(b"user-agent")),
        )
        token = current_context.set(context)
        try:
            if kind == "websocket":
                await self.app(scope, receive, send)
            elif self._enabled and scope["path"] not in self._exclude:
                await self._observe(scope, receive, send, wanted, context, request_id)
            else:
                await self.app(scope, receive, _with_request_id(send, request_id))
        finally:
            current_context.reset(token)

    async def _observe(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        wanted: dict[bytes, bytes],
        context: RequestContext,
        request_id: bytes,
    ) -> None:
        started = time.time_ns()
        parent = _ROOT
        if value := wanted.get(b"traceparent"):
            caller = parse_traceparent(value, wanted.get(b"tracestate"))
            if caller is not None:
                parent = trace.set_span_in_context(NonRecordingSpan(caller), _ROOT)
        method = scope["method"]
        known = method if method in _METHODS else "_OTHER"
        span = self._tracer.start_span(
            known if known is method else "HTTP",
            context=parent,
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": known,
                "url.path": scope["path"],
                "url.scheme": scope["scheme"],
            },
            start_time=started,
        )
        token = otel_context.attach(trace.set_span_in_context(span, parent))
        exchange = _Exchange(self, scope, receive, send, span, context, known, started, request_id)
        self._metrics.active += 1
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.failed(error)
            raise
        finally:
            otel_context.detach(token)
            exchange.finish()

    def _agent(self, raw: bytes | None) -> str:
        """The user agent as text: cut, redacted, and remembered, since few differ."""
        if raw is None:
            return ""
        known = self._agents.get(raw)
        if known is None:
            known = redact_text(raw[:_AGENT_LIMIT].decode("latin-1"))
            if len(self._agents) < _AGENT_CACHE and len(raw) <= _AGENT_LIMIT:
                self._agents[raw] = known
        return known


class _Exchange:
    """One request and its answer, as seen passing through `receive` and `send`."""

    __slots__ = (
        "_context",
        "_disconnected",
        "_ended",
        "_error",
        "_finished",
        "_headers",
        "_method",
        "_middleware",
        "_receive",
        "_scope",
        "_send",
        "_span",
        "_span_context",
        "_started",
        "_status",
    )

    def __init__(
        self,
        middleware: TelemetryMiddleware,
        scope: Scope,
        receive: Receive,
        send: Send,
        span: Span,
        context: RequestContext,
        method: str,
        started: int,
        request_id: bytes,
    ) -> None:
        self._middleware, self._scope, self._receive, self._send = middleware, scope, receive, send
        self._span, self._context, self._method, self._started = span, context, method, started
        self._span_context: SpanContext = span.get_span_context()
        self._headers = [(b"x-request-id", request_id)]
        if self._span_context.is_valid:
            self._headers.append((b"traceresponse", traceparent(self._span_context).encode("ascii")))
        self._status = self._ended = 0
        self._finished = self._disconnected = False
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
            await self._send(event)
        elif kind == "http.response.body" and not event.get("more_body", False):
            await self._send(event)
            self._ended = time.time_ns()
            # A server error's exception is still on its way up. Anything else is over for the client, and
            # background tasks that follow are not part of it.
            if self._status < 500:
                self.finish()
        else:
            await self._send(event)

    def failed(self, error: BaseException) -> None:
        self._error = error
        if not self._status:
            left = self._disconnected or isinstance(error, asyncio.CancelledError)
            self._status = CLIENT_CLOSED if left else 500

    def finish(self) -> None:
        """Record the request, once."""
        if self._finished:
            return
        self._finished = True
        metrics = self._middleware._metrics  # noqa: SLF001 - two halves of one module
        metrics.active -= 1
        ended = self._ended or time.time_ns()
        if not self._status:
            # The application returned without an answer: the client left, or the server makes it a 500.
            self._status = CLIENT_CLOSED if self._disconnected else 500
        status, method = self._status, self._method
        route = route_template(self._scope, status)
        duration = max(0, ended - self._started)
        metrics.child(method, route, status).observe(duration / 1e9, exemplar(self._span_context))
        context = self._context
        if not context.action:
            context.action = f"{method} {route}"
        if self._span.is_recording():
            self._end_span(route, status, ended)
        self._access_line(status, duration, ended, f"{method} {route}")

    def _end_span(self, route: str, status: int, ended: int) -> None:
        span, scope, context = self._span, self._scope, self._context
        attributes: dict[str, str | int] = {
            "http.response.status_code": status,
            "network.protocol.version": scope.get("http_version", ""),
            "client.address": context.ip,
            "user_agent.original": context.user_agent,
        }
        if route is not UNMATCHED:
            attributes["http.route"] = route
            span.update_name(f"{self._method} {route}" if self._method != "_OTHER" else f"HTTP {route}")
        if self._method == "_OTHER":
            attributes["http.request.method_original"] = scope["method"][:32]
        if server := scope.get("server"):
            attributes["server.address"] = server[0]
            if server[1]:
                attributes["server.port"] = server[1]
        if context.user_id:
            attributes["user.id"] = context.user_id
        error = self._error
        if error is not None and status != CLIENT_CLOSED and not self._disconnected:
            attributes["error.type"] = type_name(error)
            span.add_event("exception", exception_attributes(error))
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
            "logger": __name__,
            **out.static,
        }
        if self._span_context.is_valid:
            record["traceId"] = format(self._span_context.trace_id, "032x")
            record["spanId"] = format(self._span_context.span_id, "016x")
        for attribute, key in LOG_KEYS:
            if value := getattr(self._context, attribute):
                record[key] = value
        record["action"] = action
        record["duration"] = duration / 1e6
        record["status"] = status
        if self._disconnected:
            record["disconnected"] = True
        if self._error is not None and status != CLIENT_CLOSED and not self._disconnected:
            record["exception"] = structured(self._error)
        out.write(record)


def exception_attributes(error: BaseException) -> dict[str, str]:
    """The attributes of a span's `exception` event, without credentials."""
    return {
        "exception.type": type_name(error),
        "exception.message": message(error),
        "exception.stacktrace": stacktrace(error),
    }


def route_template(scope: Scope, status: int) -> str:
    """The template that matched, mounts and nested routers included: never the path itself.

    An application without a router may put a text into `scope["route"]`.
    """
    route = scope.get("route")
    if isinstance(route, str):
        return route
    prefix = _mount_prefix(scope) if "app_root_path" in scope else ""
    if route is not None and hasattr(route, "endpoint"):
        # FastAPI keeps the path with every included router's prefix beside the route, not in it.
        effective = scope["fastapi"].get("effective_route_context") if "fastapi" in scope else None
        if effective is not None and effective.original_route is route:
            route = effective
        return prefix + str(route.path)
    if prefix and status != 404:
        return prefix + "/{path}"
    return UNMATCHED


def _mount_prefix(scope: Scope) -> str:
    """`/t/acme` -> `/t/{tenant}`: the mounted path with its parameters named again."""
    path: str = scope.get("root_path", "")[len(scope["app_root_path"]) :]
    if values := scope.get("path_params"):
        names = {str(value): name for name, value in values.items()}
        path = "/".join(f"{{{names[part]}}}" if part in names else part for part in path.split("/"))
    return path


def _request_id(given: bytes | None) -> bytes:
    """The caller's request ID if it is short and plain, else a new one."""
    if given and len(given) <= _ID_LIMIT and not given.translate(None, _ID_ALPHABET):
        return given
    return os.urandom(16).hex().encode("ascii")


def _with_request_id(send: Send, request_id: bytes) -> Send:
    async def answer(event: Message) -> None:
        if event["type"] == "http.response.start":
            event = {**event, "headers": [*event.get("headers", ()), (b"x-request-id", request_id)]}
        await send(event)

    return answer
