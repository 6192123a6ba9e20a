"""Reads and writes transactions."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, select

from service.db.session import UnitOfWork
from service.features.transactions.models import Transaction, TransactionStatus
from service.features.transactions.schemas import Sort
from service.http.pagination import KeysetPage, Page

SORTS = {
    "createdAt": Transaction.created_at,
    "amount": Transaction.amount,
}


@dataclass(frozen=True, slots=True)
class TransactionFilter:
    """Equal on what is given."""

    status: TransactionStatus | None = None
    currency: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        wanted: list[ColumnElement[bool]] = []
        if self.status is not None:
            wanted.append(Transaction.status == self.status)
        if self.currency is not None:
            wanted.append(Transaction.currency == self.currency)
        return wanted


async def add(unit: UnitOfWork, transaction: Transaction) -> Transaction:
    unit.session.add(transaction)
    await unit.session.flush()
    return transaction


async def find(unit: UnitOfWork, public_id: UUID, *, lock: bool = False) -> Transaction | None:
    """The transaction, locked against other writers until the unit ends if asked for."""
    statement = select(Transaction).where(Transaction.public_id == public_id)
    if lock:
        statement = statement.with_for_update()
    found: Transaction | None = await unit.session.scalar(statement)
    return found


async def list_page(
    unit: UnitOfWork, wanted: TransactionFilter, sort: Sort, page: Page
) -> KeysetPage[Transaction]:
    """One page in the order of `sort`, ties broken by key."""
    keyset = page.keyset(sort, SORTS, Transaction.id)
    statement = keyset.apply(select(Transaction).where(*wanted.conditions()))
    return keyset.page(list(await unit.session.scalars(statement)))
