"""HEAD and OPTIONS for every route, and the `Allow` of a 405."""

import asyncio

from fastapi import FastAPI
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


class Methods:
    """HEAD is GET without the body; OPTIONS says which methods there are (`Cors` answers preflights)."""

    def __init__(self, app: ASGIApp, *, routes: FastAPI) -> None:
        self.app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD" and not _serves(self._routes, scope):
            await self._head(scope, receive, send)
        elif scope["type"] == "http" and scope["method"] == "OPTIONS":
            await self._options(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        ended = asyncio.Event()
        asked = False

        async def listen() -> Message:
            nonlocal asked
            if not asked:
                asked = True
                return await receive()
            # A stream ends when its client is gone: it has had the head, and wants no more.
            await ended.wait()
            return {"type": "http.disconnect"}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
            elif message["type"] == "http.response.body" and not ended.is_set():
                ended.set()
                await send({"type": "http.response.body", "body": b""})

        # In place: the layers outside read from this scope which route was found.
        scope["method"] = "GET"
        try:
            await self.app(scope, listen, answer)
        finally:
            scope["method"] = "HEAD"

    async def _options(self, scope: Scope, receive: Receive, send: Send) -> None:
        allow = allowed(self._routes, scope)
        if not allow:
            await self.app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 204, "headers": [(b"allow", allow.encode())]})
        await send({"type": "http.response.body", "body": b""})


def allowed(routes: FastAPI, scope: Scope) -> str:
    """The methods that the path of a request has, `GET, HEAD, OPTIONS`; empty if there is no such path."""
    found = [method for method in _METHODS if _serves(routes, {**scope, "method": method})]
    if "GET" in found:
        found.insert(1, "HEAD")
    return ", ".join([*found, "OPTIONS"]) if found else ""


def _serves(routes: FastAPI, scope: Scope) -> bool:
    """Whether a route is for exactly this."""
    return any(route.matches(dict(scope))[0] is Match.FULL for route in routes.router.routes)
