"""The pieces of every list, over columns of each type that can be sorted by."""

import base64
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import MetaData, Numeric, String, select
from sqlalchemy.orm import Mapped, mapped_column

from service.db.base import Base, Entity
from service.db.session import Database
from service.errors import InvalidRequestError
from service.http.pagination import Page
from tests.integration.service.harness import Service


class Item(Entity):
    __tablename__ = "test_item"
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)

    name: Mapped[str] = mapped_column(String(255))
    number: Mapped[int]
    price: Mapped[Decimal] = mapped_column(Numeric(20, 4))
    code: Mapped[UUID]
    at: Mapped[datetime]


COLUMNS = {"name": Item.name, "number": Item.number, "price": Item.price, "code": Item.code, "at": Item.at}
NAMES = (
    "",
    "a",
    "A",
    "ä" * 255,
    "漢" * 255,
    "'; DROP TABLE test_item; --",
    "a",
    "\U0001f600",
    "b\nc",
    "%_\\",
)


@pytest.fixture
async def shop(service: Service) -> Database:
    database = service.container.database
    async with database.engine.begin() as connection:
        await connection.run_sync(Item.metadata.create_all)
    async with database.unit() as unit:
        for number, name in enumerate(NAMES):
            day = f"2026-01-0{number % 4 + 1}T00:00:00.{number % 3:06}+02:00"
            unit.session.add(
                Item(
                    name=name,
                    number=(number % 3 - 1) * (2**31 - 1),
                    price=Decimal(number % 4) / 3,
                    code=uuid4(),
                    at=datetime.fromisoformat(day),
                )
            )
    return database


async def listed(database: Database, sort: str, limit: int) -> list[Item]:
    """The whole list, page by page."""
    found: list[Item] = []
    cursor: str | None = None
    async with database.unit() as unit:
        while True:
            keyset = Page(limit, cursor).keyset(sort, COLUMNS, Item.id)
            page = keyset.page(list(await unit.session.scalars(keyset.apply(select(Item)))))
            assert len(page.items) <= limit
            found += page.items
            cursor = page.next_cursor
            if cursor is None:
                return found
            assert len(cursor) <= 1500


@pytest.mark.parametrize("limit", [1, 3, len(NAMES), 100])
@pytest.mark.parametrize("sort", [sign + name for name in COLUMNS for sign in ("", "-")])
async def test_the_pages_are_the_list_in_its_order(shop: Database, sort: str, limit: int) -> None:
    column = COLUMNS[sort.removeprefix("-")]
    async with shop.unit() as unit:
        order = (column.desc(), Item.id.desc()) if sort.startswith("-") else (column, Item.id)
        expected = list(await unit.session.scalars(select(Item.id).order_by(*order)))
    assert [item.id for item in await listed(shop, sort, limit)] == expected
    assert len(expected) == len(NAMES)


def forged(*parts: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(parts)).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("sort", "value"),
    [
        ("name", "nul\0byte"),
        ("name", 5),
        ("name", None),
        ("number", "1.5"),
        ("number", str(1 << 31)),
        ("number", "1" * 5000),
        ("number", None),
        ("price", "sNaN"),
        ("price", "1e99"),
        ("code", "no-uuid"),
        ("code", 7),
        ("at", "0001-01-01T00:00:00+23:59"),
        ("at", "9999-12-31T23:59:59-23:59"),
        ("at", "2026-01-01"),
    ],
)
async def test_a_forged_cursor_is_refused_before_it_reaches_the_database(sort: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Page(5, forged(sort, value, "1")).keyset(sort, COLUMNS, Item.id)
    assert [fault.field for fault in caught.value.fields] == ["cursor"]


@pytest.mark.parametrize(("sort", "value"), [("number", str(-(2**31))), ("at", "0001-01-01T00:00:00+00:00")])
async def test_a_cursor_far_outside_gives_an_empty_page_or_all(shop: Database, sort: str, value: str) -> None:
    keyset = Page(100, forged(sort, value, "1")).keyset(sort, COLUMNS, Item.id)
    async with shop.unit() as unit:
        rows = list(await unit.session.scalars(keyset.apply(select(Item))))
    assert len(rows) in (0, len(NAMES))
