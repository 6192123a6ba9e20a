"""The handlers of the maintenance jobs. Their effects may happen again: what is gone is not removed twice."""

from datetime import timedelta

from observability import Metrics, get_logger
from service.db.base import Entity
from service.db.jobs.effects import RepeatableHandler
from service.db.jobs.keeping import Keeping
from service.db.session import Database
from service.features.maintenance import operations
from service.features.maintenance.kinds import CLEANUP, FILES, REPORTS, MaintenancePayload
from service.infra.queues.interface import Job
from service.infra.storage.interface import Storage
from service.settings import MaintenanceSettings
from service.tables import METADATA, TABLES

log = get_logger(__name__)

_ENTITIES = [METADATA.tables[table.__tablename__] for table in TABLES if issubclass(table, Entity)]


class Removals:
    """What maintenance has removed; one for a process."""

    def __init__(self, metrics: Metrics) -> None:
        self._removed = metrics.counter(
            "maintenance_removed", "Rows and files removed as expired, by table or folder.", ("source",)
        )
        for source in (*(table.name for table in _ENTITIES), REPORTS):
            self._removed.labels(source)

    def count(self, source: str, number: int) -> None:
        self._removed.labels(source).inc(number)


def cleanup(
    settings: MaintenanceSettings, database: Database, keeping: Keeping, removals: Removals
) -> RepeatableHandler[MaintenancePayload]:
    """Handles `maintenance.cleanup.v1`: deleted rows, ended jobs."""

    async def handle(_: Job, payload: MaintenancePayload) -> None:
        before = payload.scheduled_at - timedelta(seconds=settings.deleted_seconds)
        removed = await operations.remove_deleted(database, _ENTITIES, METADATA, before=before)
        for table, number in removed.items():
            removals.count(table, number)
        await keeping.once()
        log.info("maintenance.cleaned", **removed)

    return RepeatableHandler(CLEANUP, handle)


def files(
    settings: MaintenanceSettings, storage: Storage, removals: Removals
) -> RepeatableHandler[MaintenancePayload]:
    """Handles `maintenance.files.v1`: generated files."""

    async def handle(_: Job, payload: MaintenancePayload) -> None:
        before = payload.scheduled_at - timedelta(seconds=settings.report_seconds)
        removed = await operations.remove_files(storage, REPORTS, before=before)
        removals.count(REPORTS, removed)
        log.info("maintenance.files_removed", removed=removed)

    return RepeatableHandler(FILES, handle)
