"""The maintenance jobs' names and payload, and when they run."""

from datetime import datetime
from functools import partial

from pydantic import AwareDatetime, BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from service.db.jobs.schedules import Schedule
from service.db.jobs.timing import Cron, Every
from service.infra.queues.interface import JobKind, JobOptions

REPORTS = "reports"
"""Folder of the file store under which everything is generated, and may be made again."""


class MaintenancePayload(BaseModel):
    """For which time: what had not expired by then stays, however late the job runs or is tried again."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    scheduled_at: AwareDatetime


_OPTIONS = JobOptions(
    attempts=5, backoff_seconds=30.0, timeout_seconds=600.0, priority="bulk", keep_completed=30
)
CLEANUP = JobKind("maintenance.cleanup.v1", MaintenancePayload, _OPTIONS)
FILES = JobKind("maintenance.files.v1", MaintenancePayload, _OPTIONS)


def _payload(at: datetime) -> MaintenancePayload:
    return MaintenancePayload(scheduled_at=at)


_schedule = partial(Schedule, payload=_payload)

SCHEDULES = (
    # After an outage the newest is enough: what the ones before would have removed has expired for it too.
    _schedule("maintenance.cleanup", Cron("0 0 * * *"), CLEANUP, missed="once"),
    _schedule("maintenance.files", Every(3600), FILES, missed="once"),
)
