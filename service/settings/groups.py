"""The groups: every variable of the service with its type, bounds, default and an example.

The variable is the group's prefix and the field's name in capitals: `DATABASE_` + `pool_size`. Durations are
seconds unless the name says milliseconds, sizes are bytes.
"""

import ssl
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from service.settings.values import Networks, Origins, parse_networks

Environment = Literal["development", "staging", "production", "test"]
LogSink = Literal["console", "stdout", "file"]

Port = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=3600)]

_PRIVATE = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"


class Group(BaseSettings):
    """What every group shares: frozen, one prefix, values never echoed in an error."""

    title: ClassVar[str]
    model_config = SettingsConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    @classmethod
    def variable(cls, field: str) -> str:
        """The environment variable of a field."""
        return f"{cls.model_config['env_prefix']}{field}".upper()


class AppSettings(Group):
    """The process that answers HTTP."""

    title = "Application"
    model_config = SettingsConfigDict(env_prefix="APP_")

    env: Environment = Field("development", description="Environment; also picks the file .env.<APP_ENV>")
    name: str = Field(
        "yardstick",
        description="Prefix of service.name and its namespace in telemetry",
        pattern="^[a-z][a-z0-9-]*$",
    )
    host: str = Field("127.0.0.1", description="Address the API listens on", min_length=1)
    port: Port = Field(8000, description="Port the API listens on")
    debug: bool = Field(False, description="asyncio's debug mode and log level debug; refused in production")
    drain_seconds: Seconds = Field(
        10.0, description="Longest wait for requests and jobs in flight on SIGTERM"
    )
    drain_notice_seconds: float = Field(
        0.5,
        ge=0,
        le=60,
        description="Time between turning not ready and closing the port, for load balancers to notice",
    )
    body_limit_bytes: int = Field(1_048_576, ge=1024, description="Largest request body")
    cors_origins: Origins = Field(
        (),
        description="Origins whose pages may call the API from a browser; empty allows none, * every one "
        "(refused in production)",
        examples=["https://app.example.com,http://localhost:5173"],
    )
    compression_min_bytes: int = Field(
        1024, ge=0, description="Answers of text from this size on are gzipped; 0 compresses none"
    )
    trusted_proxies: Networks = Field(
        (),
        description="Addresses or networks of the proxies in front, whose APP_FORWARDED_HEADER is believed; "
        "empty believes nobody's",
        examples=["10.0.5.0/24,127.0.0.1"],
    )
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = Field(
        "x-forwarded-for", description="The one header in which those proxies name the client"
    )
    operations_networks: Networks = Field(
        parse_networks(_PRIVATE),
        description="Who sees /metrics and the details of /health, when asking directly and through no proxy",
        examples=[_PRIVATE],
    )


class WorkerSettings(Group):
    """The worker's own port for health and metrics."""

    title = "Worker"
    model_config = SettingsConfigDict(env_prefix="WORKER_")

    host: str = Field("127.0.0.1", description="Address of the worker's health and metrics", min_length=1)
    port: Port = Field(8001, description="Port of the worker's health and metrics")


def check_url(value: SecretStr, schemes: tuple[str, ...]) -> SecretStr:
    """Refuse what no driver could use. The value may hold a password, so the message never repeats it."""
    try:
        parts = urlsplit(value.get_secret_value())
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL (host or port cannot be read)") from None
    if parts.scheme not in schemes:
        raise ValueError(f"must start with {' or '.join(f'{scheme}://' for scheme in schemes)}")
    if not parts.hostname:
        raise ValueError("names no host")
    if port == 0:
        raise ValueError("port must be 1 to 65535")
    return value


def with_password(url: SecretStr, password: SecretStr | None) -> SecretStr:
    """The URL with the password in it. Raises ValueError if it has another one already."""
    if password is None:
        return url
    parts = urlsplit(url.get_secret_value())
    if parts.password:
        # Of the examples in `.env.example` both may be in force; a password that is the same harms nobody.
        if unquote(parts.password) == password.get_secret_value():
            return url
        raise ValueError("has a password of its own, and a password is set beside it: keep one of them")
    user, _, address = parts.netloc.rpartition("@")
    secret = quote(password.get_secret_value(), safe="")
    return SecretStr(urlunsplit(parts._replace(netloc=f"{user.removesuffix(':')}:{secret}@{address}")))


class DatabaseSettings(Group):
    """PostgreSQL over asyncpg."""

    title = "Database"
    model_config = SettingsConfigDict(env_prefix="DATABASE_")

    password: SecretStr | None = Field(
        None, description="Password of a DATABASE_URL that has none", examples=["change-me"]
    )
    url: SecretStr = Field(
        description="PostgreSQL URL with user and password",
        examples=["postgresql://yardstick:change-me@127.0.0.1:5432/yardstick"],
    )
    pool_size: int = Field(10, ge=1, le=200, description="Connections kept open")
    max_overflow: int = Field(5, ge=0, le=200, description="Connections opened beyond that under load")
    pool_timeout_seconds: Seconds = Field(5.0, description="Longest wait for a connection, then 503")
    statement_timeout_ms: int = Field(
        5000, ge=1, le=3_600_000, description="Longest statement (milliseconds), then 503"
    )
    connect_timeout_seconds: Seconds = Field(5.0, description="Longest wait for a new connection")
    tls_mode: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = Field(
        "prefer", description="TLS towards the server, as libpq's sslmode; verify-full proves who answers"
    )
    tls_ca: Path | None = Field(
        None,
        description="File of certificates that DATABASE_TLS_MODE=verify-* trusts; the system's when unset",
        examples=["/etc/yardstick/postgres-ca.pem"],
    )

    @field_validator("tls_ca")
    @classmethod
    def _tls_ca(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and str(info.data.get("tls_mode")).startswith("verify-"):
            try:
                ssl.create_default_context(cafile=value)
            except OSError as error:
                raise ValueError(f"holds no certificate that can be read ({type(error).__name__})") from None
        return value

    @field_validator("url")
    @classmethod
    def _url(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        check_url(value, ("postgresql", "postgres"))
        parts = urlsplit(value.get_secret_value())
        if not parts.username:
            raise ValueError("names no user")
        if len(parts.path) < 2:
            raise ValueError("names no database")
        if parts.query:
            raise ValueError("must have no parameters: they are settings of their own")
        return with_password(value, info.data.get("password"))


class RedisSettings(Group):
    """Redis."""

    title = "Redis"
    model_config = SettingsConfigDict(env_prefix="REDIS_")

    password: SecretStr | None = Field(
        None, description="Password of a REDIS_URL that has none", examples=["change-me"]
    )
    url: SecretStr = Field(
        description="Redis URL with password and database number",
        examples=["redis://:change-me@127.0.0.1:6379/0"],
    )
    key_prefix: str = Field(
        "yardstick:",
        description="In front of every key of the store",
        pattern="^[A-Za-z0-9_.:-]{1,100}$",
    )
    min_connections: int = Field(5, ge=0, le=1000, description="Connections opened at the start")
    max_connections: int = Field(50, ge=5, le=1000, description="Largest number of connections")
    connect_timeout_seconds: Seconds = Field(10.0, description="Longest wait for a new connection")
    command_timeout_seconds: Seconds = Field(5.0, description="Longest wait for an answer")
    retries: int = Field(3, ge=0, le=20, description="Retries of a command after a connection fault")
    retry_delay_ms: int = Field(100, ge=1, le=60_000, description="Pause between retries (milliseconds)")
    max_value_bytes: int = Field(10_485_760, ge=1024, le=512 << 20, description="Largest value")

    @field_validator("max_connections")
    @classmethod
    def _maximum(cls, value: int, info: ValidationInfo) -> int:
        if value < info.data.get("min_connections", 0):
            raise ValueError("must not be less than REDIS_MIN_CONNECTIONS")
        return value

    @field_validator("url")
    @classmethod
    def _url(cls, value: SecretStr, info: ValidationInfo) -> SecretStr:
        check_url(value, ("redis", "rediss"))
        path = urlsplit(value.get_secret_value()).path.strip("/")
        if path and not path.isdecimal():
            raise ValueError("database must be a number")
        return with_password(value, info.data.get("password"))


class LiveSettings(Group):
    """Live streams over server-sent events and WebSocket."""

    title = "Live streams"
    model_config = SettingsConfigDict(env_prefix="LIVE_")

    access: Literal["off", "header"] | None = Field(
        None,
        description="Who may stream. header: whoever X-User-Id names, refused outside of development and "
        "test. off: nobody. Unset: header in development and test, off elsewhere",
        examples=["off"],
    )
    stream: str = Field(
        "yardstick:live",
        description="Redis key of the stream of all events",
        min_length=1,
        max_length=200,
    )
    keep_events: int = Field(
        10_000,
        ge=10,
        le=1_000_000,
        description="Newest events kept, in Redis and in every API process, for clients that come back",
    )
    event_bytes: int = Field(16_384, ge=256, le=1_048_576, description="Largest event")
    heartbeat_seconds: Seconds = Field(15.0, description="Longest silence on a stream")
    retry_ms: int = Field(
        3000,
        ge=100,
        le=600_000,
        description="Wait before a client comes back (milliseconds)",
    )
    buffer_events: int = Field(
        100, ge=1, le=10_000, description="Events that may wait for a client; one more and it is dropped"
    )
    max_clients: int = Field(5000, ge=1, le=100_000, description="Streams of one process; beyond them 503")
    max_topics: int = Field(20, ge=1, le=1000, description="Topics of one stream")
    message_bytes: int = Field(4096, ge=64, le=1_048_576, description="Largest message of a WebSocket client")


class TelemetrySettings(Group):
    """Traces, metrics and logs."""

    title = "Telemetry"
    model_config = SettingsConfigDict(env_prefix="TELEMETRY_")

    enabled: bool = Field(True, description="Spans, metrics of requests and jobs, access lines")
    otlp_endpoint: str = Field(
        "http://127.0.0.1:4317", description="OTLP gRPC endpoint of the collector; empty exports no traces"
    )
    sample_ratio: float = Field(1.0, ge=0, le=1, description="Share of traces that is recorded")
    log_level: Literal["debug", "info", "warning", "error", "critical"] = Field(
        "info", description="Log level"
    )
    log_sink: LogSink | None = Field(
        None,
        description="Unset: console in development and test, file in staging, stdout in production",
        examples=["stdout"],
    )
    log_file: Path = Field(Path("logs/service.jsonl"), description="File of the file sink")
    log_max_bytes: int = Field(5_000_000, ge=10_000, description="Size at which the log file is rotated")
    log_backups: int = Field(5, ge=0, le=100, description="Rotated log files kept")
    instance_id: str | None = Field(
        None, description="service.instance.id; host:pid when unset", min_length=1, examples=["web1:4711"]
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://, or be empty")
        return value
