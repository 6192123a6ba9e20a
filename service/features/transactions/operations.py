"""What can be done with transactions. Nothing here commits."""

from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from service.db.jobs.outbox import Outbox
from service.db.session import UnitOfWork
from service.errors import ConflictError, NotFoundError
from service.features.transactions import repository
from service.features.transactions.models import MOVES, Transaction, TransactionStatus
from service.features.transactions.settlement import SETTLEMENT, SettlementPayload
from service.features.transactions.telemetry import TransactionSignals


async def create(
    unit: UnitOfWork,
    outbox: Outbox,
    signals: TransactionSignals,
    *,
    amount: Decimal,
    currency: str,
    reference: str,
) -> Transaction:
    """Add a pending transaction and the job that settles it, both or neither."""
    transaction = await repository.add(
        unit,
        Transaction(amount=amount, currency=currency, reference=reference, status=TransactionStatus.PENDING),
    )
    await outbox.add(unit, SETTLEMENT, SettlementPayload(transaction_id=transaction.public_id))
    unit.after_commit(lambda: signals.created(transaction))
    return transaction


async def settle(unit: UnitOfWork, signals: TransactionSignals, public_id: UUID) -> Transaction:
    """Settle a pending transaction. Raises NotFoundError; ConflictError when its state forbids it."""
    with signals.settling(str(public_id)):
        transaction = await repository.find(unit, public_id, lock=True)
        if transaction is None:
            raise NotFoundError("There is no such transaction")
        _move(transaction, TransactionStatus.SETTLED)
        transaction.settled_at = datetime.now(UTC)
        await unit.session.flush()
    unit.after_commit(lambda: signals.settled(transaction))
    return transaction


def _move(transaction: Transaction, status: TransactionStatus) -> None:
    if status not in MOVES[TransactionStatus(transaction.status)]:
        raise ConflictError(f"A {transaction.status} transaction cannot become {status}")
    transaction.status = status
