"""Who gets past the guard of the jobs' administration, and what its token may be."""

from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.security import HTTPAuthorizationCredentials
from pydantic import SecretStr, ValidationError

from service.errors import NotFoundError, UnauthenticatedError
from service.features.jobs.guard import jobs_admin
from service.settings import QueueSettings
from service.settings.loading import _production_faults

TOKEN = "an-operators-token-0123456789-abcdefgh"


def container(token: str | None) -> Any:
    settings = QueueSettings(admin_token=None if token is None else SecretStr(token))
    return SimpleNamespace(settings=SimpleNamespace(queue=settings))


def given(token: str) -> HTTPAuthorizationCredentials:
    return HTTPAuthorizationCredentials(scheme="Bearer", credentials=token)


async def test_the_token_opens() -> None:
    await jobs_admin(container(TOKEN), given(TOKEN))


@pytest.mark.parametrize("token", ["", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\xe9", "漢" * 20])
async def test_any_other_does_not(token: str) -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        await jobs_admin(container(TOKEN), given(token))
    assert caught.value.headers["WWW-Authenticate"] == 'Bearer realm="jobs", error="invalid_token"'
    assert TOKEN not in str(caught.value)


async def test_nothing_given_is_asked_for() -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        await jobs_admin(container(TOKEN), None)
    assert caught.value.headers["WWW-Authenticate"] == 'Bearer realm="jobs"'


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_without_a_setting_there_is_nothing(token: str | None) -> None:
    with pytest.raises(NotFoundError):
        await jobs_admin(container(None), None if token is None else given(token))


@pytest.mark.parametrize("token", ["", "too-short", "x" * 15, "with space " * 4, "naïve-naïve-naïve-naïve"])
def test_a_token_that_no_header_could_carry_or_anybody_guess_is_refused(token: str) -> None:
    with pytest.raises(ValidationError) as caught:
        container(token)
    assert not token or token not in str(caught.value)


@pytest.mark.parametrize(
    ("token", "said"),
    [("q7-Zr2_Kd81.Vw0m", "shorter than 32"), ("change-me-" * 5, "placeholder"), (TOKEN, None)],
)
def test_production_takes_only_a_good_one(token: str, said: str | None) -> None:
    faults = _production_faults(container(token).settings.queue)
    mine = [fault for fault in faults if fault.startswith("QUEUE_ADMIN_TOKEN")]
    assert ([said in fault for fault in mine] == [True]) if said else not mine
    assert token not in str(faults)
