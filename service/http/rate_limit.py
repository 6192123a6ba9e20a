"""The layer that refuses who asks too much, and how a route declares rates of its own.

    @router.post("/login")
    @limited("5/minute", "50/hour")
    async def login(...): ...

A layer and not a dependency: it also counts what never reaches one, such as unknown paths, malformed bodies
and failed logins. It reads the user from the request's context, so whatever authenticates must have bound the
user before: another layer around this one. Until then every caller is an address.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, TypeVar

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from observability import current
from service.errors import TooManyRequestsError
from service.http.client_address import subscriber
from service.http.envelope import failure
from service.infra.rate_limit.guard import RateLimitGuard
from service.infra.rate_limit.interface import Decision, Window
from service.settings import Rate

F = TypeVar("F", bound=Callable[..., Any])

_DECLARED = "__rates__"
_PLAIN_USER = re.compile(r"[A-Za-z0-9_-]{1,64}")


def limited(*rates: str) -> Callable[[F], F]:
    """Count this route by itself, by these rates and not by the default. Goes below the route's decorator.

    Raises:
        ValueError: no rate, or one that is not written like `5/minute`, or two over the same time.
    """
    parsed = tuple(Rate.parse(rate) for rate in rates)
    if not parsed or len({rate.seconds for rate in parsed}) < len(parsed):
        raise ValueError("a limited route needs rates, each over another time")
    return _declare(parsed)


def unlimited(endpoint: F) -> F:
    """Do not count this route at all."""
    return _declare(())(endpoint)


def _declare(rates: tuple[Rate, ...]) -> Callable[[F], F]:
    def mark(endpoint: F) -> F:
        setattr(endpoint, _DECLARED, rates)
        return endpoint

    return mark


@dataclass(frozen=True, slots=True)
class _Route:
    pattern: re.Pattern[str]
    template: str
    methods: frozenset[str]
    rates: tuple[Rate, ...] | None

    def serves(self, scope: Scope) -> bool:
        method = scope.get("method", "WEBSOCKET")
        return method in self.methods and self.pattern.match(scope["path"]) is not None


class RateLimit:
    """Counts every request by its caller, and answers 429 with the frame once a window is full.

    Args:
        app: what the requests go on to.
        routes: the application whose routes may declare rates.
        guard: decides.
        default: rate of an address over all routes that declare none.
        user: the same of a user.
    """

    def __init__(
        self, app: ASGIApp, *, routes: FastAPI, guard: RateLimitGuard, default: Rate, user: Rate
    ) -> None:
        self.app = app
        self._guard = guard
        self._default = {"ip": default, "user": user}
        self._routes = _read_routes(routes)
        self._declared = tuple(route for route in self._routes if route.rates is not None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        policies = self._policies(scope)
        decision = await self._guard.decide([window for _, window in policies]) if policies else None
        if decision is None:
            await self.app(scope, receive, send)
            return
        headers = _headers([name for name, _ in policies], decision)
        if not decision.allowed:
            await self._refuse(scope, receive, send, headers)
            return

        async def answer(message: Message) -> None:
            if message["type"] in {"http.response.start", "websocket.accept"}:
                message.setdefault("headers", [])
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await self.app(scope, receive, answer)

    def _policies(self, scope: Scope) -> list[tuple[str, Window]]:
        """What the request is counted in: a name for the client, and the window."""
        kind, caller = _caller(scope)
        route = next((route for route in self._declared if route.serves(scope)), None)
        if route is None:
            return [(kind, Window(f"{kind}:{caller}", self._default[kind]))]
        place = f"route:{scope.get('method', 'WEBSOCKET')} {route.template}:{kind}:{caller}"
        return [(f"route-{rate.seconds}", Window(place, rate)) for rate in route.rates or ()]

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, headers: Mapping[str, str]) -> None:
        route = next((route for route in self._routes if route.serves(scope)), None)
        if route is not None:
            # Telemetry names the route, although the router has not seen this request.
            scope["route"] = route.template
        response = failure(TooManyRequestsError(headers=headers))
        if scope["type"] == "websocket" and "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1013, "reason": "rate limited"})
            return
        await response(scope, receive, send)


def _caller(scope: Scope) -> tuple[str, str]:
    """`user` and who, else `ip` and which. Both are bounded: a foreign text is only ever seen as its hash."""
    user = current().user_id
    if not user:
        client = scope.get("client")
        return "ip", subscriber(client[0] if client else "")
    if _PLAIN_USER.fullmatch(user) is None:
        user = blake2b(user.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return "user", user


def _read_routes(app: FastAPI) -> tuple[_Route, ...]:
    found = []
    for route in iter_route_contexts(app.routes):
        pattern = getattr(route, "path_regex", None)
        if pattern is not None:
            methods = frozenset(route.methods or {"WEBSOCKET"})
            declared = getattr(route.endpoint, _DECLARED, None)
            found.append(_Route(pattern, route.path or "", methods, declared))
    return tuple(found)


def _headers(names: Sequence[str], decision: Decision) -> dict[str, str]:
    """Both forms: two structured fields (draft-ietf-httpapi-ratelimit-headers from -08 on), and the three
    plain ones of the drafts before it, which most clients read; these tell of the tightest window."""
    seconds = [math.ceil(state.seconds) for state in decision.windows]
    states = list(zip(names, decision.windows, seconds, strict=True))
    tightest = decision.tightest
    headers = {
        "RateLimit-Policy": ", ".join(f'"{n}";q={s.rate.limit};w={s.rate.seconds}' for n, s, _ in states),
        "RateLimit": ", ".join(f'"{n}";r={s.remaining};t={t}' for n, s, t in states),
        "RateLimit-Limit": str(tightest.rate.limit),
        "RateLimit-Remaining": str(tightest.remaining),
        "RateLimit-Reset": str(math.ceil(tightest.seconds)),
    }
    if not decision.allowed:
        headers["Retry-After"] = str(max(1, math.ceil(decision.retry_after)))
    return headers
