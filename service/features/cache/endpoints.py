"""`GET /v1/cache/statistics`."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from service.errors import NotFoundError
from service.http.dependencies import CurrentContainer
from service.http.envelope import Success, failures, success

router = APIRouter(prefix="/v1/cache", tags=["cache"])


class _Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, from_attributes=True)


class DomainStatisticsView(_Camel):
    """Reads of a domain. `misses` are all but the hits: loaded, shared, bypassed, Redis away."""

    domain: str
    priority: Literal["low", "normal", "high", "critical"]
    ttl_seconds: float
    hits: int
    misses: int
    hit_rate: float | None
    evictions: int
    errors: int
    outcomes: dict[str, int]


class CacheStatisticsView(_Camel):
    """`cluster`: all processes together, some seconds old. `instance`: this one alone, for Redis is away."""

    scope: Literal["cluster", "instance"]
    domains: list[DomainStatisticsView]


@router.get("/statistics", responses=failures(404))
async def statistics(container: CurrentContainer) -> Success[CacheStatisticsView]:
    """Hits, misses, hit rate, evictions and errors by domain."""
    settings = container.settings
    served = settings.cache.statistics_endpoint
    if served is False or (served is None and settings.app.env == "production"):
        raise NotFoundError
    return success(CacheStatisticsView.model_validate(await container.cache.statistics()))
