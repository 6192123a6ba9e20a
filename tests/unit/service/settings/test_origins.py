"""What the settings of HTTP and of the database accept."""

import pytest
from pydantic import ValidationError

from service.settings import AppSettings, DatabaseSettings


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", ()),
        (" , ", ()),
        ("*", ("*",)),
        ("https://a.example", ("https://a.example",)),
        ("https://A.example/, http://localhost:5173", ("https://a.example", "http://localhost:5173")),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
    ],
)
def test_origins(text: str, origins: tuple[str, ...]) -> None:
    assert AppSettings.model_validate({"cors_origins": text}).cors_origins == origins


@pytest.mark.parametrize(
    "text",
    [
        "a.example",
        "https://",
        "https://a.example/path",
        "https://u:p@a.example",
        "*,https://a.example",
        "null",
    ],
)
def test_no_origins(text: str) -> None:
    with pytest.raises(ValidationError, match=r"is not an origin|must be \* alone"):
        AppSettings.model_validate({"cors_origins": text})


def test_a_database_url_has_no_parameters_of_its_own() -> None:
    with pytest.raises(ValidationError, match="must have no parameters"):
        DatabaseSettings.model_validate({"url": "postgresql://u:p@h/d?sslmode=require"})
