"""The group of the cache."""

from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from service.settings.groups import Group, Seconds

Lifetime = Annotated[float, Field(ge=1, le=604_800)]


class CacheSettings(Group):
    """Lifetimes by domain, limits, and how long a request may wait for the cache."""

    title = "Cache"
    model_config = SettingsConfigDict(env_prefix="CACHE_")

    permissions_seconds: Lifetime = Field(900, description="Life of cached permissions")
    users_seconds: Lifetime = Field(1800, description="Life of cached users")
    settings_seconds: Lifetime = Field(3600, description="Life of cached settings")
    sessions_seconds: Lifetime = Field(86_400, description="Life of cached sessions")
    transactions_seconds: Lifetime = Field(300, description="Life of cached transactions in a final state")
    negative_seconds: float = Field(
        5.0, ge=0, le=3600, description='Life of a cached "there is no such thing"; 0 caches none'
    )
    ttl_jitter: float = Field(
        0.1, ge=0, le=0.9, description="Largest share by which a life is shortened, against stampedes"
    )
    entry_limit_bytes: int = Field(
        5_242_880, ge=1024, le=10_000_000, description="Largest encoded value; a larger one is not cached"
    )
    bulk_limit: int = Field(1000, ge=1, le=10_000, description="Most keys of one bulk call")
    timeout_ms: int = Field(
        500, ge=10, le=10_000, description="Longest wait for Redis (milliseconds); then the source is asked"
    )
    breaker_faults: int = Field(
        3, ge=1, le=1000, description="Timeouts in a row after which Redis is left alone until it answers"
    )
    probe_seconds: Seconds = Field(1.0, description="Pause between looks whether Redis answers again")
    lease_seconds: Seconds = Field(
        5.0, description="Longest load that others wait for; then they ask the source themselves"
    )
    hold_seconds: Seconds = Field(
        60.0, description="Longest write during which its keys stay uncached; more than any transaction takes"
    )
    warm_seconds: Seconds = Field(60.0, description="Interval of warming, once per cluster")
    memory_high: float = Field(
        0.85, gt=0, le=1, description="Share of Redis' maxmemory above which low priorities are evicted"
    )
    memory_low: float = Field(0.75, ge=0, le=1, description="Share below which eviction stops")
    write_behind_limit: int = Field(
        10_000,
        ge=1,
        le=1_000_000,
        description="Most acknowledged writes that wait for their source, by domain",
    )
    statistics_endpoint: bool | None = Field(
        None,
        description="Whether GET /v1/cache/statistics is served; unset: everywhere but in production",
        examples=["true"],
    )

    @field_validator("memory_low")
    @classmethod
    def _below_high(cls, value: float, info: ValidationInfo) -> float:
        if value > info.data.get("memory_high", 1.0):
            raise ValueError("must not be above CACHE_MEMORY_HIGH")
        return value
