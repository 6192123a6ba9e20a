"""Is the content of a transactions answer what was asked for? A text says what is not; empty is good."""

from decimal import Decimal, InvalidOperation
from typing import Any


def mismatch(data: Any, expected: dict[str, Any]) -> str:
    """What differs between a transaction and what must be in it, or an empty string."""
    if not isinstance(data, dict) or not isinstance(data.get("id"), str):
        return "data is not a transaction with an id"
    wrong = [key for key, value in expected.items() if not _same(key, data.get(key), value)]
    return f"the answer's {', '.join(wrong)} is not the one that was sent" if wrong else ""


def _same(key: str, got: Any, sent: Any) -> bool:
    if key != "amount":
        return bool(got == sent)
    try:
        return Decimal(str(got)) == Decimal(str(sent))  # 12.5 and 12.50 are one amount
    except InvalidOperation:
        return False


def not_a_page(data: Any) -> str:
    """What is wrong with a list of transactions, or an empty string."""
    if not isinstance(data, list):
        return "data is not a list"
    if not all(isinstance(item, dict) and isinstance(item.get("id"), str) for item in data):
        return "an item of the list has no id"
    return ""
