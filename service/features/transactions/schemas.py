"""What clients send and get. JSON is camelCase; amounts are decimal strings."""

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from service.features.transactions.currency import CURRENCIES
from service.features.transactions.models import TransactionStatus

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _known_currency(value: str) -> str:
    if value not in CURRENCIES:
        raise ValueError("is not an ISO 4217 currency in use")
    return value


def _positive(value: str) -> str:
    if Decimal(value) <= 0:
        raise ValueError("must be greater than 0")
    return value


def _printable(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must not hold control characters")
    return value


def plain_amount(value: Decimal) -> str:
    """`12.5000` -> `12.50`: at least two places, no exponent."""
    whole, _, places = f"{value:f}".partition(".")
    return f"{whole}.{places.rstrip('0'):0<2}"


# The schema says as much as the validation does, in words that JSON Schema has and the validator has not.
Currency = Annotated[
    str,
    Field(pattern="^[A-Z]{3}$", examples=["EUR"], json_schema_extra={"enum": sorted(CURRENCIES)}),
    AfterValidator(_known_currency),
]
AmountText = Annotated[
    str,
    Field(
        pattern=r"^[0-9]{1,16}(\.[0-9]{1,4})?$",
        description="Decimal number as text, greater than 0, up to 16 digits before the point and 4 after it",
        examples=["12.50"],
        json_schema_extra={"pattern": r"^(?=.*[1-9])[0-9]{1,16}(\.[0-9]{1,4})?$"},
    ),
    AfterValidator(_positive),
]
Amount = Annotated[Decimal, PlainSerializer(plain_amount, return_type=str)]
Sort = Literal["createdAt", "-createdAt", "amount", "-amount"]


class _Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class TransactionCreate(_Camel):
    """A new transaction."""

    model_config = ConfigDict(extra="forbid", strict=True)

    amount: AmountText
    currency: Currency
    reference: Annotated[
        str,
        Field(
            min_length=1,
            max_length=140,
            json_schema_extra={"pattern": r"^[^\u0000-\u001f\u007f]*$"},
        ),
        AfterValidator(_printable),
    ]


class TransactionView(_Camel):
    """A transaction as clients see it."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID = Field(validation_alias="public_id")
    amount: Amount
    currency: str
    reference: str
    status: TransactionStatus
    created_at: datetime
    updated_at: datetime
    settled_at: datetime | None
    version: int
