"""The groups of the scheduler and of what it has cleaned up."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from service.settings.groups import Group, Port, Seconds


class SchedulerSettings(Group):
    """The scheduler and its own port for health and metrics."""

    title = "Scheduler"
    model_config = SettingsConfigDict(env_prefix="SCHEDULER_")

    host: str = Field("127.0.0.1", description="Address of the scheduler's health and metrics", min_length=1)
    port: Port = Field(8002, description="Port of the scheduler's health and metrics")
    poll_seconds: Seconds = Field(
        5.0, description="Longest pause between looks at the schedules; one that becomes due ends it"
    )


class MaintenanceSettings(Group):
    """What is removed in the background, and when it may be."""

    title = "Maintenance"
    model_config = SettingsConfigDict(env_prefix="MAINTENANCE_")

    deleted_seconds: int = Field(
        30 * 86_400, ge=0, description="Deleted rows can be restored for this long; then they are removed"
    )
    report_seconds: int = Field(
        86_400, ge=60, description="Generated files, those under reports/, are removed after this time"
    )
