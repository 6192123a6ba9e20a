"""Pure ASGI layers around the application: security headers, the body's limit, the last resort for errors."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import PayloadTooLargeError, ServiceError, translate
from service.http.envelope import failure

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_API_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
_HSTS = "max-age=31536000; includeSubDomains"
# At most this many times the limit, and for so long, is read and thrown away.
_DISCARDED = 8
_DISCARD_SECONDS = 5.0
DOCUMENTATION = ("/docs", "/redoc")


class SecurityHeaders:
    """Adds the headers that an API should send; the documentation pages load scripts and get no policy."""

    def __init__(self, app: ASGIApp, *, hsts: bool) -> None:
        self.app = app
        self._fixed = _HEADERS | ({"Strict-Transport-Security": _HSTS} if hsts else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        wanted = self._fixed if scope["path"].startswith(DOCUMENTATION) else self._fixed | _API_HEADERS

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in wanted.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, answer)


class BodyLimit:
    """Refuses a body over the limit with the frame: by its declared length, else while it is read.

    FastAPI's own limit answers in plain text where a route has not read the body, hence this one. Some of
    what follows is thrown away first: a client that is still sending would see a reset and no answer.
    """

    def __init__(self, app: ASGIApp, *, limit: int, below: Mapping[str, int] | None = None) -> None:
        """`below` gives the routes under a path a limit of their own: `{"/v1/files/content": 52428800}`."""
        self.app = app
        self._limit = limit
        self._below = tuple((path, f"{path}/", own) for path, own in (below or {}).items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        limit = self._limit
        for path, folder, own in self._below:
            if scope["path"] == path or scope["path"].startswith(folder):
                limit = own
        if declared.isdecimal() and int(declared) > limit:
            await self._discard(receive, limit)
            await failure(PayloadTooLargeError())(scope, receive, send)
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                if message.get("more_body", False):
                    await self._discard(receive, limit)
                # An HTTPException passes FastAPI's reading of the body and is translated like every other.
                raise HTTPException(413)
            return message

        await self.app(scope, limited, send)

    @staticmethod
    async def _discard(receive: Receive, limit: int) -> None:
        left = _DISCARDED * limit
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return


class AnsweredErrors:
    """Answers with the frame what a layer inside raises. The framework does so only for its own routes.

    A `ServiceError` is an answer like any other; anything else goes on to telemetry after it was answered.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, answer)
        except Exception as error:
            if started:
                raise
            await failure(translate(error))(scope, receive, send)
            if not isinstance(error, (ServiceError, HTTPException)):
                raise


class Draining:
    """While the process drains, every answer asks its client to close the connection.

    A load balancer then opens its next one to another instance, and no request is on its way into a
    connection that the end of this process cuts.
    """

    def __init__(self, app: ASGIApp, draining: Callable[[], bool]) -> None:
        self.app = app
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # HTTP/2 has no such header: the server says goodbye in a frame of its own.
        if scope["type"] != "http" or not scope["http_version"].startswith("1"):
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and self._draining():
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self.app(scope, receive, answer)


class ErrorsEndHere:
    """The outermost layer.

    The framework has answered an unknown error with 500 and telemetry has recorded it. Raised further, it
    would only make the server write a second traceback.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, answer)
        except Exception:
            if not started:
                raise
