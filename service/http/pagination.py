"""Keyset pagination: stable under inserts, the same cost on every page."""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import orjson
from fastapi import Query
from sqlalchemy import BigInteger, Select, tuple_
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.types import TypeEngine

from service.errors import FieldFault, InvalidRequestError

MAX_LIMIT = 100
DEFAULT_LIMIT = 20
_CURSOR_LENGTH = 1500
_INTEGER, _BIGINT = 1 << 31, 1 << 63

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page:
    """The query parameters `limit` and `cursor`; as a dependency: `Annotated[Page, Depends()]`."""

    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Most items on the page")] = DEFAULT_LIMIT
    cursor: Annotated[
        str | None, Query(max_length=_CURSOR_LENGTH, description="`meta.page.nextCursor` of the page before")
    ] = None

    def keyset(
        self, sort: str, columns: Mapping[str, InstrumentedAttribute[Any]], key: InstrumentedAttribute[int]
    ) -> "Keyset":
        """The place of this page in the order of `sort`, such as `-createdAt`.

        A column is a time, a number, a text of up to 255 characters or a UUID, and never null: a null has no
        place in an order, and rows with one would be on no page.

        Raises:
            InvalidRequestError: the cursor is malformed or belongs to another order.
        """
        column = columns[sort.removeprefix("-")]
        after = None if self.cursor is None else _decode(self.cursor, sort, column)
        return Keyset(self.limit, sort, column, key, after)


@dataclass(frozen=True, slots=True)
class KeysetPage(Generic[T]):
    """Items and, unless they are the last, the cursor of what follows."""

    items: list[T]
    limit: int
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Keyset:
    """An order, and where to go on in it."""

    limit: int
    sort: str
    column: InstrumentedAttribute[Any]
    key: InstrumentedAttribute[int]
    after: tuple[Any, int] | None

    def apply(self, statement: Select[tuple[T]]) -> Select[tuple[T]]:
        """Order, position and limit; one row too many, which says whether there is a next page."""
        place = tuple_(self.column, self.key)
        descending = self.sort.startswith("-")
        if self.after is not None:
            statement = statement.where(place < self.after if descending else place > self.after)
        order = (self.column.desc(), self.key.desc()) if descending else (self.column.asc(), self.key.asc())
        return statement.order_by(*order).limit(self.limit + 1)

    def page(self, rows: list[T]) -> KeysetPage[T]:
        items = rows[: self.limit]
        cursor = None
        if len(rows) > self.limit:
            last = items[-1]
            cursor = _encode(self.sort, getattr(last, self.column.key), getattr(last, self.key.key))
        return KeysetPage(items, self.limit, cursor)


def _encode(sort: str, value: object, key: int) -> str:
    text = value.isoformat() if isinstance(value, datetime) else str(value)
    return base64.urlsafe_b64encode(orjson.dumps([sort, text, str(key)])).rstrip(b"=").decode()


def _decode(cursor: str, sort: str, column: InstrumentedAttribute[Any]) -> tuple[Any, int]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        made_for, text, key = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        if made_for != sort:
            raise _fault("belongs to another sort order")
        return _value(text, column.type), _key(key)
    except (ValueError, TypeError, AttributeError, OverflowError, binascii.Error, InvalidOperation):
        raise _fault("is not a cursor of this list") from None


def _value(text: str, column: TypeEngine[Any]) -> Any:
    kind = column.python_type
    if issubclass(kind, datetime):
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            raise ValueError("a time without zone")
        return moment.astimezone(UTC)
    if issubclass(kind, str):
        if "\0" in text:
            raise ValueError("no text that PostgreSQL has")
        return text
    if issubclass(kind, UUID):
        return UUID(text)
    if issubclass(kind, int):
        return _whole(text, _BIGINT if isinstance(column, BigInteger) else _INTEGER)
    number = Decimal(text)
    if not number.is_finite() or abs(number.adjusted()) > 40:
        raise ValueError("not a number of this column")
    return number


def _whole(text: str, bound: int) -> int:
    number = int(text)
    if not -bound <= number < bound:
        raise ValueError("not a number of this column")
    return number


def _key(text: str) -> int:
    key = _whole(text, _BIGINT)
    if key < 0:
        raise ValueError("not a key")
    return key


def _fault(message: str) -> InvalidRequestError:
    return InvalidRequestError(fields=[FieldFault("cursor", message)])
