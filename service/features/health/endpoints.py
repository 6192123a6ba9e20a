"""`/health`, `/health/live`, `/health/ready` and `/metrics`. The edge keeps the last to itself."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from service.errors import UnavailableError
from service.http.dependencies import CurrentContainer
from service.http.envelope import Success, failures, success

router = APIRouter(tags=["health"])


class _Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class DependencyView(_Camel):
    """One dependency; latency in milliseconds."""

    status: Literal["up", "down"]
    latency_ms: float
    error: str | None


class HealthView(_Camel):
    """`degraded`: something is down that requests can do without for a while."""

    status: Literal["up", "degraded", "down", "draining"]
    version: str
    dependencies: dict[str, DependencyView]


class StateView(_Camel):
    """A yes."""

    status: Literal["live", "ready"]


@router.get("/health")
async def health(container: CurrentContainer) -> Success[HealthView]:
    """Every dependency with its latency. Always 200: whether to send traffic is what `/health/ready` says."""
    readings = await container.health.readings()
    if container.health.draining:
        status = "draining"
    elif not container.health.well(readings):
        status = "down"
    else:
        status = "up" if all(reading.status == "up" for reading in readings.values()) else "degraded"
    dependencies = {
        name: DependencyView(status=r.status, latency_ms=r.latency_ms, error=r.error)
        for name, r in readings.items()
    }
    return success(HealthView(status=status, version=container.version, dependencies=dependencies))


@router.get("/health/live")
async def live() -> Success[StateView]:
    """The process runs."""
    return success(StateView(status="live"))


@router.get("/health/ready", responses=failures(503))
async def ready(container: CurrentContainer) -> Success[StateView]:
    """The process takes requests; 503 while it drains or the database is away."""
    if not await container.health.ready():
        raise UnavailableError(
            "Draining" if container.health.draining else "A dependency does not answer", retry_after=1
        )
    return success(StateView(status="ready"))


@router.get("/metrics", include_in_schema=False)
async def metrics(request: Request, container: CurrentContainer) -> Response:
    """Prometheus text, or OpenMetrics with exemplars if asked for."""
    body, content_type = container.telemetry.exposition(request.headers.get("accept"))
    return Response(body, headers={"Content-Type": content_type})
