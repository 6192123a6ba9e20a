"""The handlers of this domain's jobs."""

from functools import partial

from service.db.jobs.effects import JobHandler
from service.db.session import UnitOfWork
from service.errors import ConflictError, NotFoundError
from service.features.transactions import operations
from service.features.transactions.settlement import SETTLEMENT, SettlementPayload
from service.features.transactions.telemetry import TransactionSignals
from service.infra.queues.interface import PermanentJobError


def settlement(signals: TransactionSignals) -> JobHandler[SettlementPayload]:
    """Handles `transaction.settlement.v1`."""
    return JobHandler(SETTLEMENT, partial(_settle, signals))


async def _settle(signals: TransactionSignals, unit: UnitOfWork, payload: SettlementPayload) -> None:
    try:
        await operations.settle(unit, signals, payload.transaction_id)
    except (NotFoundError, ConflictError) as error:
        raise PermanentJobError(error.message) from error
