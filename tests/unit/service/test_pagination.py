"""Cursors: what was given out is taken back, everything else is refused."""

from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.dialects.postgresql import dialect

from service.errors import InvalidRequestError
from service.features.transactions.models import Transaction
from service.features.transactions.repository import SORTS
from service.http.pagination import Keyset, Page


def keyset(cursor: str | None, sort: str = "-createdAt", limit: int = 2) -> Keyset:
    return Page(limit=limit, cursor=cursor).keyset(sort, SORTS, Transaction.id)


def rows(count: int, created: datetime, amount: Decimal, key: int) -> list[Transaction]:
    return [Transaction(id=key + n, created_at=created, amount=amount) for n in range(count)]


@given(
    st.datetimes(timezones=st.just(UTC), min_value=datetime(2000, 1, 1)),  # noqa: DTZ001 - hypothesis adds the zone
    st.decimals(min_value="0.0001", max_value="9999999999999999", places=4, allow_nan=False),
    st.integers(0, (1 << 63) - 10),
    st.sampled_from(["createdAt", "-createdAt", "amount", "-amount"]),
)
def test_a_cursor_leads_back_to_its_row(created: datetime, amount: Decimal, key: int, sort: str) -> None:
    page = keyset(None, sort).page(rows(3, created, amount, key))
    assert len(page.items) == 2
    assert page.next_cursor is not None
    value = created if sort.endswith("createdAt") else amount
    assert keyset(page.next_cursor, sort).after == (value, key + 1)


def test_the_last_page_has_no_cursor() -> None:
    page = keyset(None).page(rows(2, datetime.now(UTC), Decimal(1), 1))
    assert page.next_cursor is None


@given(st.text(max_size=80))
def test_no_text_is_more_than_a_422(text: str) -> None:
    with suppress(InvalidRequestError):
        keyset(text)


def test_a_cursor_of_another_order_is_refused() -> None:
    cursor = keyset(None).page(rows(3, datetime.now(UTC), Decimal(1), 1)).next_cursor
    with pytest.raises(InvalidRequestError) as caught:
        keyset(cursor, "createdAt")
    assert caught.value.fields[0].message == "belongs to another sort order"


@pytest.mark.parametrize(("sort", "sign"), [("amount", ">"), ("-amount", "<")])
def test_the_statement_compares_value_and_key_together(sort: str, sign: str) -> None:
    cursor = keyset(None, sort).page(rows(3, datetime.now(UTC), Decimal(1), 1)).next_cursor
    statement = keyset(cursor, sort).apply(select(Transaction)).compile(dialect=dialect())  # type: ignore[no-untyped-call]
    assert f"(transaction.amount, transaction.id) {sign} " in str(statement)
