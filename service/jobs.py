"""Every job of the service: read here what exists."""

from typing import Any

from service.db.effects import JobHandler
from service.features.transactions import jobs as transactions
from service.features.transactions.telemetry import TransactionSignals


def job_handlers(signals: TransactionSignals) -> tuple[JobHandler[Any], ...]:
    """The handlers that a worker runs."""
    return (transactions.settlement(signals),)
