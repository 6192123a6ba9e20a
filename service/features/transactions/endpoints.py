"""`/v1/transactions`."""

from decimal import Decimal
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from service.errors import NotFoundError
from service.features.transactions import operations, repository
from service.features.transactions.models import TransactionStatus
from service.features.transactions.repository import TransactionFilter
from service.features.transactions.schemas import Currency, Sort, TransactionCreate, TransactionView
from service.http.dependencies import CurrentContainer, CurrentUnit
from service.http.envelope import Success, SuccessList, failures, success, success_list
from service.http.pagination import Page

router = APIRouter(prefix="/v1/transactions", tags=["transactions"])


@router.post("", status_code=201, responses=failures(413, 422, 503))
async def create(
    body: TransactionCreate, unit: CurrentUnit, container: CurrentContainer
) -> Success[TransactionView]:
    """Create a transaction; it is settled in the background."""
    transaction = await operations.create(
        unit,
        container.outbox,
        container.transactions,
        amount=Decimal(body.amount),
        currency=body.currency,
        reference=body.reference,
    )
    return success(TransactionView.model_validate(transaction), "Transaction created", status=201)


@router.get("/{transaction_id}", responses=failures(404, 422, 503))
async def get(transaction_id: UUID, container: CurrentContainer) -> Success[TransactionView]:
    """One transaction."""
    found = await container.transaction_views.get(transaction_id)
    if found is None:
        raise NotFoundError("There is no such transaction")
    return success(found)


@router.get("", responses=failures(422, 503))
async def list_transactions(
    unit: CurrentUnit,
    page: Annotated[Page, Depends()],
    sort: Annotated[Sort, Query(description="A leading minus means descending")] = "-createdAt",
    status: TransactionStatus | None = None,
    currency: Annotated[Currency | None, Query()] = None,
) -> SuccessList[TransactionView]:
    """A page of transactions."""
    found = await repository.list_page(unit, TransactionFilter(status, currency), sort, page)
    return success_list(found, [TransactionView.model_validate(row) for row in found.items])
