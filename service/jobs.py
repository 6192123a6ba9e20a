"""Every job of the service: read here what exists."""

from service.db.jobs.effects import Handler
from service.features.transactions import jobs as transactions
from service.features.transactions.telemetry import TransactionSignals


def job_handlers(signals: TransactionSignals) -> tuple[Handler, ...]:
    """The handlers that a worker runs."""
    return (transactions.settlement(signals),)
