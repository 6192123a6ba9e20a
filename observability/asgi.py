"""One pass over each request: one span, one observation with its exemplar, one access line."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanKind

from observability.context import RequestContext, current_context
from observability.exchange import METHODS, Exchange, Message, Receive, Scope, Send
from observability.redaction import redact_text
from observability.routing import action
from observability.setup import Telemetry, TelemetryConfig
from observability.tracing import parse_traceparent

ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

EXCLUDED = frozenset({"/metrics", "/health", "/health/live", "/health/ready"})
_WANTED = frozenset({b"x-request-id", b"traceparent", b"tracestate", b"user-agent"})
_ID_ALPHABET = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:/+="
_ID_LIMIT = 128
_AGENT_LIMIT = 256
_AGENT_CACHE = 1_024
_ROOT = Context()


class TelemetryMiddleware:
    """ASGI middleware, to be put around the whole application.

    Around, not inside (`app = TelemetryMiddleware(app, telemetry)`): then the answer that an outer error
    layer gives to an unhandled exception is the one that is counted and carries the headers. Inside
    (`add_middleware`) the exception counts as a 500 all the same.

    Requests for a path in `exclude` get their `X-Request-ID` and nothing else. `metrics_path` is answered
    here, for an application that has no route of its own for it. `close_on_shutdown` closes telemetry at the
    end of the ASGI lifespan, for one that does not close it itself.
    """

    def __init__(
        self,
        app: ASGIApp,
        telemetry: Telemetry,
        *,
        exclude: Iterable[str] = EXCLUDED,
        metrics_path: str | None = None,
        close_on_shutdown: bool = False,
    ) -> None:
        self.app = app
        self.telemetry = telemetry
        self._metrics_path = metrics_path
        self._close_on_shutdown = close_on_shutdown
        self._exclude = frozenset(exclude)
        self._enabled = telemetry.enabled
        self._tracer = telemetry.tracer
        self._metrics = telemetry.metrics.http
        self._agents: dict[bytes, str] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self.app(scope, receive, self._closing(send) if self._close_on_shutdown else send)
            return
        if kind not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        if kind == "http" and scope["path"] == self._metrics_path:
            await self._expose(scope, send)
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
                await self._observe(
                    scope, receive, send, wanted=wanted, context=context, request_id=request_id
                )
            else:
                await self.app(scope, receive, _with_request_id(send, request_id))
        finally:
            current_context.reset(token)

    async def _observe(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        wanted: dict[bytes, bytes],
        context: RequestContext,
        request_id: bytes,
    ) -> None:
        started = time.time_ns()
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        context.route = partial(action, method, scope)
        parent = _ROOT
        if value := wanted.get(b"traceparent"):
            caller = parse_traceparent(value, wanted.get(b"tracestate"))
            if caller is not None:
                parent = trace.set_span_in_context(NonRecordingSpan(caller), _ROOT)
        span = self._tracer.start_span(
            "HTTP" if method == "_OTHER" else method,
            context=parent,
            kind=SpanKind.SERVER,
            start_time=started,
        )
        token = otel_context.attach(trace.set_span_in_context(span, parent))
        exchange = Exchange(
            scope,
            receive,
            send,
            metrics=self._metrics,
            span=span,
            context=context,
            method=method,
            started=started,
            request_id=request_id,
        )
        self._metrics.active += 1
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.failed(error)
            raise
        finally:
            otel_context.detach(token)
            exchange.finish()

    async def _expose(self, scope: Scope, send: Send) -> None:
        accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
        body, content_type = self.telemetry.exposition(accept.decode("latin-1"))
        headers = [(b"content-type", content_type.encode("latin-1")), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _closing(self, send: Send) -> Send:
        async def answer(event: Message) -> None:
            if event["type"].startswith("lifespan.shutdown."):
                await self.telemetry.close()
            await send(event)

        return answer

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


def instrument(
    app: ASGIApp, config: TelemetryConfig, *, metrics_path: str = "/metrics"
) -> TelemetryMiddleware:
    """All that an application without a composition root needs: start, wrap, `/metrics`, close at its end."""
    telemetry = Telemetry.start(config)
    return TelemetryMiddleware(app, telemetry, metrics_path=metrics_path, close_on_shutdown=True)


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
