"""One translation for every error."""

import pytest
from starlette.exceptions import HTTPException

from service.errors import ConflictError, ServiceError, UnavailableError, translate


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "validation_failed"), (404, "not_found"), (405, "method_not_allowed"), (413, "payload_too_large")],
)
def test_what_the_framework_refuses_gets_our_code(status: int, code: str) -> None:
    assert translate(HTTPException(status, "framework's words")).code == code
    assert "framework" not in translate(HTTPException(status, "framework's words")).message


def test_other_refusals_keep_their_status_and_failures_become_500() -> None:
    assert (translate(HTTPException(418)).status, translate(HTTPException(418)).code) == (418, "refused")
    assert translate(HTTPException(502)).status == 500


def test_headers_of_a_refusal_are_kept() -> None:
    assert translate(HTTPException(405, headers={"Allow": "GET"})).headers == {"Allow": "GET"}
    assert UnavailableError(retry_after=7).headers == {"Retry-After": "7"}


def test_an_unknown_error_tells_nothing() -> None:
    found = translate(RuntimeError("postgresql://u:pw@h/d"))
    assert type(found) is ServiceError
    assert (found.status, found.code) == (500, "internal")
    assert "pw" not in found.message


def test_our_own_errors_pass() -> None:
    error = ConflictError("mine")
    assert translate(error) is error
