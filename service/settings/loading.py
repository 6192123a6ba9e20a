"""Reads all groups at once, so that one start shows every fault."""

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import unquote, urlsplit

from dotenv import dotenv_values
from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails

from service.settings.cache import CacheSettings
from service.settings.files import FilesSettings
from service.settings.groups import (
    AppSettings,
    DatabaseSettings,
    Environment,
    Group,
    LiveSettings,
    RedisSettings,
    TelemetrySettings,
    WorkerSettings,
)
from service.settings.locks import LockSettings
from service.settings.maintenance import MaintenanceSettings, SchedulerSettings
from service.settings.protection import HealthSettings, RateLimitSettings
from service.settings.queue import OutboxSettings, QueueSettings
from service.settings.secret_files import from_files, secret_fields

GROUPS: tuple[type[Group], ...] = (
    AppSettings,
    WorkerSettings,
    SchedulerSettings,
    DatabaseSettings,
    RedisSettings,
    CacheSettings,
    LockSettings,
    QueueSettings,
    OutboxSettings,
    LiveSettings,
    FilesSettings,
    MaintenanceSettings,
    RateLimitSettings,
    HealthSettings,
    TelemetrySettings,
)
SECRET_LENGTH = 32
_PLACEHOLDER = re.compile(
    r"change[-_ ]?(me|this|it)|placeholder|^(secret|password|example|todo|your)\W?|^(.)\3*$", re.IGNORECASE
)
# Kubernetes puts such names into every process: REDIS_SERVICE_HOST, REDIS_PORT_6379_TCP, REDIS_PORT=tcp://...
_SERVICE_LINK = re.compile(r"_(SERVICE_(HOST|PORT(_\w+)?)=|PORT_\d+_(TCP|UDP)(_\w+)?=|PORT=(tcp|udp)://)")

G = TypeVar("G", bound=Group)

_GENERATE = 'example: generate one with python -c "import secrets; print(secrets.token_urlsafe(32))"'


class SettingsError(Exception):
    """Settings that the service cannot start with; the text has one line per fault and never a secret."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Settings:
    """Every group. Immutable; made by `load_settings`."""

    app: AppSettings
    worker: WorkerSettings
    scheduler: SchedulerSettings
    database: DatabaseSettings
    redis: RedisSettings
    cache: CacheSettings
    locks: LockSettings
    queue: QueueSettings
    outbox: OutboxSettings
    live: LiveSettings
    files: FilesSettings
    maintenance: MaintenanceSettings
    rate_limit: RateLimitSettings
    health: HealthSettings
    telemetry: TelemetrySettings


class _Reader:
    """Collects groups and faults. `.env.<APP_ENV>` wins over `.env`, the process environment over both."""

    def __init__(self, directory: Path) -> None:
        base = directory / ".env"
        environment = os.environ.get("APP_ENV") or dotenv_values(base).get("APP_ENV") or "development"
        self.files = tuple(f for f in (base, directory / f".env.{environment}") if f.is_file())
        self.environment = environment if environment in get_args(Environment) else None
        self.faults: list[str] = []

    def read(self, group: type[G]) -> G | None:
        secrets, faults = from_files(group, (*map(dotenv_values, self.files), os.environ))
        if faults:
            self.faults += faults
            return None
        given: dict[str, Any] = dict(secrets)
        try:
            loaded = group(_env_file=self.files, _env_file_encoding="utf-8", **given)
        except ValidationError as error:
            self.faults += [_explain(group, fault) for fault in error.errors(include_input=False)]
            return None
        if self.environment == "production":
            self.faults += _production_faults(loaded)
        if self.environment in ("staging", "production"):
            self.faults += _deployed_faults(loaded)
        return loaded

    def refuse_unknown(self) -> None:
        """A misspelt name would otherwise leave its default in force without a word."""
        known = {group.variable(field) for group in GROUPS for field in group.model_fields}
        known |= {variable for group in GROUPS for variable in secret_fields(group).values()}
        prefixes = tuple(str(group.model_config["env_prefix"]) for group in GROUPS)
        found: dict[str, str] = dict.fromkeys(
            (name for name, value in os.environ.items() if not _SERVICE_LINK.search(f"{name}={value}")),
            "the environment",
        )
        for file in self.files:
            found |= dict.fromkeys(dotenv_values(file), file.name)
        for name in sorted(found):
            if name.upper().startswith(prefixes) and name.upper() not in known:
                near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.5)
                hint = f"; did you mean {near[0]}?" if near else ""
                self.faults.append(f"{name}: is not a setting (found in {found[name]}){hint}")

    def raise_faults(self) -> None:
        if self.faults:
            raise SettingsError(self.faults)


def load_settings(directory: Path | None = None) -> Settings:
    """Read every group.

    Args:
        directory: where the `.env` files are; the working directory when not given.

    Raises:
        SettingsError: something is missing, malformed, unknown, or refused in production.
    """
    reader = _Reader(directory or Path.cwd())
    groups: Mapping[str, Any] = {
        "app": reader.read(AppSettings),
        "worker": reader.read(WorkerSettings),
        "scheduler": reader.read(SchedulerSettings),
        "database": reader.read(DatabaseSettings),
        "redis": reader.read(RedisSettings),
        "cache": reader.read(CacheSettings),
        "locks": reader.read(LockSettings),
        "queue": reader.read(QueueSettings),
        "outbox": reader.read(OutboxSettings),
        "live": reader.read(LiveSettings),
        "files": reader.read(FilesSettings),
        "maintenance": reader.read(MaintenanceSettings),
        "rate_limit": reader.read(RateLimitSettings),
        "health": reader.read(HealthSettings),
        "telemetry": reader.read(TelemetrySettings),
    }
    reader.refuse_unknown()
    reader.raise_faults()
    return Settings(**groups)


def load_migration_settings(directory: Path | None = None) -> DatabaseSettings:
    """The database group alone: a migration needs no Redis. Raises SettingsError like `load_settings`."""
    reader = _Reader(directory or Path.cwd())
    database = reader.read(DatabaseSettings)
    reader.raise_faults()
    assert database is not None  # noqa: S101 - without a fault it was read
    return database


def example_value(group: type[Group], field: str) -> str:
    """A value that is right for the variable, as written in a `.env` file."""
    info = group.model_fields[field]
    value = info.examples[0] if info.examples else info.default
    return str(value).lower() if isinstance(value, bool) else str(value)


def _explain(group: type[Group], fault: ErrorDetails) -> str:
    field = str(fault["loc"][0])
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        message = "is missing"
    variable = group.variable(field)
    return f"{variable}: {message}; example: {variable}={example_value(group, field)}"


def _deployed_faults(group: Group) -> list[str]:
    if isinstance(group, LiveSettings) and group.access == "header":
        # Anybody could be anybody.
        return ["LIVE_ACCESS: header is refused outside of development and test; example: LIVE_ACCESS=off"]
    if isinstance(group, FilesSettings) and "signing_key" not in group.model_fields_set:
        return [f"FILES_SIGNING_KEY: is missing; {_GENERATE}"]
    return []


def _production_faults(group: Group) -> list[str]:
    faults = []
    if isinstance(group, AppSettings) and group.debug:
        faults.append("APP_DEBUG: is refused in production; example: APP_DEBUG=false")
    if isinstance(group, AppSettings) and "*" in group.cors_origins:
        example = example_value(AppSettings, "cors_origins")
        faults.append(f"APP_CORS_ORIGINS: * is refused in production; example: APP_CORS_ORIGINS={example}")
    if isinstance(group, FilesSettings) and group.api_enabled:
        faults.append("FILES_API_ENABLED: is refused in production; example: FILES_API_ENABLED=false")
    for field in type(group).model_fields:
        value = getattr(group, field)
        if isinstance(value, SecretStr):
            faults += _secret_faults(type(group).variable(field), value)
    return faults


def _secret_faults(variable: str, secret: SecretStr) -> list[str]:
    """A URL's secret is its password; any other secret is all of it."""
    text = secret.get_secret_value()
    is_url = "://" in text
    password = unquote(urlsplit(text).password or "") if is_url else text
    what = "password is" if is_url else "is"
    if not password:
        return [
            f"{variable}: {'has no password' if is_url else 'is empty'}, refused in production; {_GENERATE}"
        ]
    if _PLACEHOLDER.search(password):
        return [f"{variable}: {what} a placeholder, refused in production; {_GENERATE}"]
    if len(password) < SECRET_LENGTH:
        return [
            f"{variable}: {what} shorter than {SECRET_LENGTH} characters, refused in production; {_GENERATE}"
        ]
    return []
