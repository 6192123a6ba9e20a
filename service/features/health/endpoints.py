"""`/health`, `/health/live`, `/health/ready` and `/metrics`.

The outside sees how the process is doing and no more: without details in `/health`, and `/metrics` does not
exist. Inside is who asks directly from `APP_OPERATIONS_NETWORKS`; what a proxy has passed on never is.
"""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from service.errors import NotFoundError, UnavailableError
from service.http.dependencies import CurrentContainer, Inside
from service.http.envelope import Success, failures, success
from service.http.rate_limit import unlimited

router = APIRouter(tags=["health"])


class _Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class DependencyView(_Camel):
    """One dependency; latency in milliseconds."""

    status: Literal["up", "down"]
    latency_ms: float
    error: str | None


class HealthView(_Camel):
    """`degraded`: something is down that requests can do without for a while.

    Version and dependencies are null for the outside.
    """

    status: Literal["up", "degraded", "down", "draining"]
    version: str | None
    dependencies: dict[str, DependencyView] | None


class StateView(_Camel):
    """A yes."""

    status: Literal["live", "ready"]


@router.get("/health")
@unlimited
async def health(container: CurrentContainer, inside: Inside) -> Success[HealthView]:
    """Every dependency with its latency. Always 200: whether to send traffic is what `/health/ready` says."""
    readings = await container.health.readings()
    if container.health.draining:
        status = "draining"
    elif not container.health.well(readings):
        status = "down"
    else:
        status = "up" if all(reading.status == "up" for reading in readings.values()) else "degraded"
    if not inside:
        return success(HealthView(status=status, version=None, dependencies=None))
    dependencies = {
        name: DependencyView(status=r.status, latency_ms=r.latency_ms, error=r.error)
        for name, r in readings.items()
    }
    return success(HealthView(status=status, version=container.version, dependencies=dependencies))


@router.get("/health/live")
@unlimited
async def live() -> Success[StateView]:
    """The process runs."""
    return success(StateView(status="live"))


@router.get("/health/ready", responses=failures(503))
@unlimited
async def ready(container: CurrentContainer) -> Success[StateView]:
    """The process takes requests; 503 while it drains or the database is away."""
    if not await container.health.ready():
        raise UnavailableError(
            "Draining" if container.health.draining else "A dependency does not answer", retry_after=1
        )
    return success(StateView(status="ready"))


@router.get("/metrics", include_in_schema=False)
@unlimited
async def metrics(request: Request, container: CurrentContainer, inside: Inside) -> Response:
    """Prometheus text, or OpenMetrics with exemplars if asked for. For the outside there is no such path."""
    if not inside:
        raise NotFoundError
    body, content_type = container.telemetry.exposition(request.headers.get("accept"))
    return Response(body, headers={"Content-Type": content_type})
