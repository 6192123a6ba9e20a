"""Pure ASGI layers around the application: security headers, the body's limit, the last resort for errors."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import PayloadTooLargeError
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

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > self._limit:
            await self._discard(receive)
            await failure(PayloadTooLargeError())(scope, receive, send)
            return
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limit:
                if message.get("more_body", False):
                    await self._discard(receive)
                # An HTTPException passes FastAPI's reading of the body and is translated like every other.
                raise HTTPException(413)
            return message

        await self.app(scope, limited, send)

    async def _discard(self, receive: Receive) -> None:
        left = _DISCARDED * self._limit
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return


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
