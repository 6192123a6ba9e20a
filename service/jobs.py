"""Every job and every schedule of the service: read here what exists."""

from typing import Any

from service.container import Container
from service.db.jobs.effects import Handler
from service.db.jobs.keeping import Keeping
from service.db.jobs.schedules import Schedule
from service.features.maintenance import jobs as maintenance
from service.features.maintenance import kinds as maintained
from service.features.transactions import jobs as transactions

SCHEDULES: tuple[Schedule[Any], ...] = (*maintained.SCHEDULES,)
"""What is enqueued by the clock."""


def job_handlers(container: Container, keeping: Keeping) -> tuple[Handler, ...]:
    """The handlers that a worker runs."""
    settings, removals = container.settings, maintenance.Removals(container.telemetry.metrics)
    return (
        transactions.settlement(container.transactions),
        maintenance.cleanup(settings.maintenance, container.database, keeping, removals),
        maintenance.files(settings.maintenance, container.files, removals),
    )
