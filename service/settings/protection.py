"""The groups that keep the service from being overrun: by its callers, and by whoever asks for its health."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from service.settings.groups import Group, Seconds
from service.settings.values import Rate, RateValue


class RateLimitSettings(Group):
    """How much a client may ask. Routes may declare rates of their own (`service.http.rate_limit`)."""

    title = "Rate limit"
    model_config = SettingsConfigDict(env_prefix="RATE_LIMIT_")

    enabled: bool = Field(True, description="Whether requests are counted and limited at all")
    default: RateValue = Field(
        Rate(100, 3600),
        description="Requests of a caller (user, else IP address) to the routes that declare no rates",
    )
    user: RateValue | None = Field(
        None,
        description="The same for a caller who is a user; unset: RATE_LIMIT_DEFAULT",
        examples=["1000/hour"],
    )
    timeout_ms: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Longest wait for a decision (milliseconds); then the request passes",
    )
    breaker_faults: int = Field(
        3, ge=1, le=1000, description="Faults in a row after which Redis is not asked for a while"
    )
    breaker_seconds: Seconds = Field(1.0, description="How long it is not asked; requests pass meanwhile")


class HealthSettings(Group):
    """How the process looks at what it depends on."""

    title = "Health"
    model_config = SettingsConfigDict(env_prefix="HEALTH_")

    cache_seconds: Seconds = Field(1.0, description="Age up to which a reading is given again")
    timeout_seconds: Seconds = Field(2.0, description="A dependency that answers no sooner counts as down")
    disk_path: Path = Field(Path(), description="A directory on the file system whose free space is watched")
    disk_free_percent: float = Field(5.0, ge=0, lt=100, description="Less free space than this is down")
