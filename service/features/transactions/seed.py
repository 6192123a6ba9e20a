"""Demonstration data. The same rows each time, so that a second run adds nothing."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid5

from sqlalchemy.dialects.postgresql import insert

from service.db.session import UnitOfWork
from service.features.transactions.models import Transaction, TransactionStatus

_NAMESPACE = UUID("6f6f0f0c-8d0a-4c19-9a55-1c2f6a0f1d3e")
_CURRENCIES = ("EUR", "USD", "GBP", "JPY", "CHF")
ROWS = 50


async def seed(unit: UnitOfWork) -> int:
    """Add settled transactions of the last days; gives how many were new."""
    statement = insert(Transaction).values([_row(number) for number in range(ROWS)])
    result = await unit.session.execute(
        statement.on_conflict_do_nothing(index_elements=[Transaction.public_id]).returning(
            Transaction.public_id
        )
    )
    return len(result.all())


def _row(number: int) -> dict[str, object]:
    created = datetime.now(UTC) - timedelta(hours=3 * (ROWS - number))
    return {
        "public_id": uuid5(_NAMESPACE, str(number)),
        "amount": Decimal(number * 137 % 9_973 + 1) + Decimal("0.25") * (number % 4),
        "currency": _CURRENCIES[number % len(_CURRENCIES)],
        "reference": f"demo invoice {1000 + number}",
        "status": TransactionStatus.SETTLED,
        "created_at": created,
        "updated_at": created,
        "settled_at": created + timedelta(seconds=2),
        "version": 1,
    }
