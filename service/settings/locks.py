"""The group of the distributed locks."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from service.settings.groups import Group


class LockSettings(Group):
    """Locks in Redis."""

    title = "Locks"
    model_config = SettingsConfigDict(env_prefix="LOCK_")

    ttl_seconds: float = Field(
        30.0, ge=1, le=300, description="A lock whose holder died is free after this time"
    )
    retries: int = Field(10, ge=0, le=1000, description="Tries to get a lock that is held, after the first")
    retry_delay_ms: int = Field(
        50,
        ge=1,
        le=60_000,
        description="Pause between these tries (milliseconds), with up to half of it more or less",
    )
