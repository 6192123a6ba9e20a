"""Typed, frozen settings: one group per concern, read from the environment and `.env` files."""

from service.settings.cache import CacheSettings
from service.settings.files import FilesSettings
from service.settings.groups import (
    AppSettings,
    DatabaseSettings,
    Environment,
    LiveSettings,
    LogSink,
    RedisSettings,
    TelemetrySettings,
    WorkerSettings,
)
from service.settings.loading import Settings, SettingsError, load_migration_settings, load_settings
from service.settings.locks import LockSettings
from service.settings.maintenance import MaintenanceSettings, SchedulerSettings
from service.settings.protection import HealthSettings, RateLimitSettings
from service.settings.queue import OutboxSettings, QueueSettings
from service.settings.values import Network, Rate

__all__ = [
    "AppSettings",
    "CacheSettings",
    "DatabaseSettings",
    "Environment",
    "FilesSettings",
    "HealthSettings",
    "LiveSettings",
    "LockSettings",
    "LogSink",
    "MaintenanceSettings",
    "Network",
    "OutboxSettings",
    "QueueSettings",
    "Rate",
    "RateLimitSettings",
    "RedisSettings",
    "SchedulerSettings",
    "Settings",
    "SettingsError",
    "TelemetrySettings",
    "WorkerSettings",
    "load_migration_settings",
    "load_settings",
]
