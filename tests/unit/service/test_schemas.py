"""Amounts as text, both ways."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from service.features.transactions.currency import CURRENCIES
from service.features.transactions.schemas import Amount, AmountText, TransactionCreate

TEXT = TypeAdapter(AmountText)
SHOWN = TypeAdapter(Amount)


@pytest.mark.parametrize(
    ("stored", "shown"),
    [("12.5000", "12.50"), ("12", "12.00"), ("0.0001", "0.0001"), ("1E+3", "1000.00"), ("10.1000", "10.10")],
)
def test_amounts_are_shown_plainly(stored: str, shown: str) -> None:
    assert SHOWN.dump_python(Decimal(stored)) == shown


@given(st.decimals(min_value="0.0001", max_value="9999999999999999.9999", places=4, allow_nan=False))
def test_an_amount_comes_back_as_it_went_in(amount: Decimal) -> None:
    text = SHOWN.dump_python(amount)
    assert Decimal(TEXT.validate_python(text)) == amount


@given(st.text(max_size=30))
def test_what_is_taken_is_a_positive_finite_number(text: str) -> None:
    try:
        taken = TEXT.validate_python(text)
    except ValidationError:
        return
    number = Decimal(taken)
    assert number.is_finite()
    assert 0 < number < Decimal(10) ** 16
    assert number == number.quantize(Decimal("0.0001"))


def test_the_list_of_currencies() -> None:
    assert {"EUR", "USD", "JPY", "CHF"} <= CURRENCIES
    assert all(len(code) == 3 and code.isascii() and code.isupper() for code in CURRENCIES)
    assert len(CURRENCIES) > 150


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValidationError):
        TransactionCreate.model_validate({"amount": "1", "currency": "EUR", "reference": "x", "id": 1})
