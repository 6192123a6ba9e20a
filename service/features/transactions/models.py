"""The transaction's table and its states."""

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import CheckConstraint, Index, Numeric, String
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Entity


class TransactionStatus(StrEnum):
    """Where a transaction stands. Moves that are not in `MOVES` are refused."""

    PENDING = "pending"
    SETTLED = "settled"


MOVES: dict[TransactionStatus, frozenset[TransactionStatus]] = {
    TransactionStatus.PENDING: frozenset({TransactionStatus.SETTLED}),
    TransactionStatus.SETTLED: frozenset(),
}


class Transaction(Entity):
    """Money moved once. The amount has up to 4 decimal places and is never a float."""

    __tablename__ = "transaction"
    __table_args__ = (
        CheckConstraint("amount > 0", name="amount_positive"),
        Index("ix_transaction_created_at_id", "created_at", "id"),
        Index("ix_transaction_amount_id", "amount", "id"),
    )

    amount: Mapped[Decimal] = mapped_column(Numeric(20, 4))
    currency: Mapped[str] = mapped_column(String(3))
    reference: Mapped[str] = mapped_column(String(140))
    status: Mapped[str] = mapped_column(String(20), default=TransactionStatus.PENDING)
    settled_at: Mapped[datetime | None]
