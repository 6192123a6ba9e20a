"""The API: `python -m service.app`."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp

from observability import TelemetryMiddleware
from service.api import API_ROUTERS, OPERATIONS_ROUTERS
from service.container import Container, Role, open_container
from service.errors import MethodNotAllowedError, ServiceError, translate
from service.features.files.endpoints import UPLOADS
from service.features.jobs.endpoints import router as jobs_admin
from service.http.client_address import ClientAddress
from service.http.compression import compressed
from service.http.cors import Cors
from service.http.envelope import failure, failures
from service.http.methods import Methods, allowed
from service.http.middleware import AnsweredErrors, BodyLimit, Draining, ErrorsEndHere, SecurityHeaders
from service.http.openapi import ANY_FAILURE, Api
from service.http.rate_limit import RateLimit
from service.http.server import HttpServer, check_port
from service.process import run
from service.settings import Settings
from service.tasks import end, first_of

_TAGS = [
    {"name": "transactions", "description": "Payments, settled in the background"},
    {"name": "files", "description": "Uploads, downloads and signed links"},
    {"name": "live", "description": "Events as they happen, over server-sent events and WebSocket"},
    {"name": "jobs", "description": "Administration of jobs and of the dead-letter queue"},
    {"name": "cache", "description": "What the cache has saved"},
    {"name": "health", "description": "How the process and what it depends on are doing"},
]


def create_app(container: Container) -> ASGIApp:
    """The API with its layers."""
    return in_layers(create_routes(container, _served(container.settings)), container)


def _served(settings: Settings) -> list[APIRouter]:
    """Without a token the administration of jobs is not there at all, nor in the contract."""
    hidden = () if settings.queue.admin_token is not None else (jobs_admin,)
    return [router for router in API_ROUTERS if router not in hidden]


def create_operations_app(container: Container) -> ASGIApp:
    """Health and metrics alone, for a process that has no API."""
    return in_layers(create_routes(container, OPERATIONS_ROUTERS), container)


@asynccontextmanager
async def operated(settings: Settings, role: Role, *, host: str, port: int) -> AsyncIterator[Container]:
    """The container of a process without an API, with a port of its own for health and metrics."""
    check_port(host, port)
    async with open_container(settings, role) as container:
        operations = HttpServer(create_operations_app(container), host=host, port=port)
        await operations.start()
        yield container
        await operations.stop(settings.app.drain_seconds)


def create_routes(container: Container, routers: Iterable[APIRouter]) -> FastAPI:
    """Routes and error translation."""
    app_settings = container.settings.app
    documented = app_settings.env != "production"
    app = Api(
        title=app_settings.name.capitalize(),
        version=container.version,
        openapi_tags=_TAGS,
        responses=ANY_FAILURE,
        openapi_url="/openapi.json" if documented else None,
        docs_url="/docs" if documented else None,
        redoc_url=None,
        redirect_slashes=False,
        # Its own spans, metrics and logs would come on top of ours, at three times the cost.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.container = container
    for kind in (ServiceError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, _answer)
    for router in routers:
        app.include_router(router, responses={} if router in OPERATIONS_ROUTERS else failures(429))
    return app


def in_layers(app: FastAPI, container: Container) -> ASGIApp:
    """The layers around the routes, the innermost first."""
    settings = container.settings.app
    layered: ASGIApp = BodyLimit(
        app, limit=settings.body_limit_bytes, below={UPLOADS: container.settings.files.max_bytes}
    )
    limits = container.settings.rate_limit
    if limits.enabled:
        layered = RateLimit(
            layered,
            routes=app,
            guard=container.rate_limit,
            default=limits.default,
            user=limits.user or limits.default,
        )
    if settings.compression_min_bytes:
        layered = compressed(layered, min_bytes=settings.compression_min_bytes)
    layered = Methods(layered, routes=app)
    layered = AnsweredErrors(layered)
    if settings.cors_origins:
        layered = Cors(layered, origins=settings.cors_origins)
    layered = Draining(layered, lambda: container.health.draining)
    layered = SecurityHeaders(layered, hsts=settings.env in ("staging", "production"))
    layered = TelemetryMiddleware(layered, container.telemetry)
    layered = ClientAddress(layered, trusted=settings.trusted_proxies, header=settings.forwarded_header)
    return ErrorsEndHere(layered)


async def _answer(request: Request, error: Exception) -> Response:
    found = translate(error)
    if isinstance(found, MethodNotAllowedError):
        # The router names the methods of the first route that has this path, and there may be more.
        found.headers["Allow"] = allowed(request.app, request.scope)
    return failure(found)


async def serve(settings: Settings, stopping: asyncio.Event) -> None:
    """Serve until `stopping`, then drain: not ready, port closed, requests in flight finished, all closed."""
    app = settings.app
    check_port(app.host, app.port)
    async with open_container(settings, "api") as container:
        server = HttpServer(create_app(container), host=app.host, port=app.port)
        await server.start()
        stopped = asyncio.create_task(stopping.wait(), name="stopping")
        waiting = asyncio.create_task(container.health.await_dependencies(), name="await-dependencies")
        await first_of(stopped, server.serving)
        await end(stopped, waiting)
        await drain(container, server)


async def drain(container: Container, server: HttpServer) -> None:
    """Turn not ready, give load balancers time to see it, then close the port."""
    app = container.settings.app
    container.health.draining = True
    await asyncio.sleep(app.drain_notice_seconds)
    # Streams would otherwise hold up the drain for as long as their clients like.
    await container.live.close()
    await server.stop(app.drain_seconds)


if __name__ == "__main__":
    sys.exit(run(serve))
