"""Jobs: the queue that carries them, and the table that they stand in."""

import re
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from service.settings.groups import Group, Seconds, check_url


class QueueSettings(Group):
    """The job queue."""

    title = "Queue"
    model_config = SettingsConfigDict(env_prefix="QUEUE_")

    engine: Literal["redis", "rabbitmq", "file"] = Field("redis", description="What carries jobs to workers")
    name: str = Field("yardstick:jobs", description="Name of the queue", min_length=1, max_length=100)
    file_path: Path = Field(
        Path("data/queue.db"),
        description="File of the file engine, on a local disk that all processes of the machine share",
    )
    concurrency: int = Field(20, ge=1, le=1000, description="Jobs that one worker runs at a time")
    poll_seconds: Seconds = Field(
        0.5, description="Longest pause between looks at the queue; what is published ends it"
    )
    lease_seconds: float = Field(
        8.0, ge=1, le=600, description="A job of a worker that died runs again after this time"
    )
    interruptions: int = Field(
        10, ge=1, le=1000, description="Deaths of its worker after which a job is taken for their cause"
    )
    sample_seconds: Seconds = Field(
        2.0, description="Interval of the gauges of queue and outbox, of backpressure, and of heartbeats"
    )
    max_depth: int = Field(
        10_000, ge=0, description="With more due jobs waiting the API refuses new work; 0 sets no limit"
    )
    max_age_seconds: float = Field(
        300.0,
        ge=0,
        description="With a job waiting for longer the API refuses new work; 0 sets no limit",
    )
    admin_token: SecretStr | None = Field(
        None,
        description="Bearer token of /v1/admin/jobs; unset: there is no such path",
        examples=["change-me-to-32-random-characters-or-more"],
    )
    rabbitmq_url: SecretStr | None = Field(
        None,
        validate_default=True,
        description="RabbitMQ URL with user, password and virtual host (%2F is the usual one); needed by the"
        " rabbitmq engine",
        examples=["amqp://yardstick:change-me@127.0.0.1:5672/%2F"],
    )
    rabbitmq_type: Literal["classic", "quorum"] = Field(
        "classic",
        description="Type of the work queues. classic: five priorities, on one node. quorum: replicated in a"
        " cluster, two priorities",
    )
    rabbitmq_prefetch: int | None = Field(
        None,
        ge=1,
        le=100,
        description="Jobs of one queue that a worker holds, running and next; unset: QUEUE_CONCURRENCY, at"
        " most 100",
        examples=[20],
    )
    rabbitmq_heartbeat_seconds: int = Field(
        10,
        ge=1,
        le=600,
        description="Silence after which the broker asks whether a worker lives; one that hangs loses its"
        " jobs to others after two to three",
    )
    rabbitmq_timeout_seconds: Seconds = Field(10.0, description="Longest wait for RabbitMQ's answer")
    rabbitmq_max_message_bytes: int = Field(
        16_777_216,
        ge=1024,
        le=512 << 20,
        description="Largest job; the broker's own max_message_size holds as well",
    )

    @field_validator("admin_token")
    @classmethod
    def _token(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]{16,}", value.get_secret_value()):
            raise ValueError("must be at least 16 characters of visible ASCII without spaces")
        return value

    @field_validator("rabbitmq_url")
    @classmethod
    def _rabbitmq_url(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            if info.data.get("engine") == "rabbitmq":
                raise ValueError("is needed by QUEUE_ENGINE=rabbitmq")
            return None
        check_url(value, ("amqp", "amqps"))
        parts = urlsplit(value.get_secret_value())
        if not parts.username:
            raise ValueError("names no user")
        if parts.query:
            raise ValueError("must have no parameters: they are settings of their own")
        return value


DEAD_SECONDS, DEAD_LIMIT = 86_400, 10_000
"""How long dead letters are kept, and how many, where the settings do not say otherwise."""


class OutboxSettings(Group):
    """The relay from the outbox table to the queue."""

    title = "Outbox"
    model_config = SettingsConfigDict(env_prefix="OUTBOX_")

    poll_seconds: Seconds = Field(
        1.0, description="Longest pause between looks at the outbox; a commit that enqueues ends it"
    )
    batch: int = Field(200, ge=1, le=1000, description="Most jobs per transaction of the relay")
    keep_seconds: int = Field(
        3600, ge=60, description="Completed jobs stay at least this long, so that a duplicate is known as one"
    )
    dead_seconds: int = Field(
        DEAD_SECONDS, ge=60, description="Dead letters become failed jobs after this time"
    )
    dead_limit: int = Field(DEAD_LIMIT, ge=0, description="Most dead letters; the oldest become failed jobs")
    republish_seconds: int = Field(
        900, ge=10, description="A job that should have ended this long ago is given to the queue again"
    )
