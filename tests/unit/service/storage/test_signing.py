"""A signed link is for one file, one method and one time."""

from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.infra.storage.errors import SignatureRefusedError
from service.infra.storage.signing import UrlSigner

SECRET = "a-secret-of-the-tests-0123456789-abc"
NOW = 1_800_000_000.0


def signer(secret: str = SECRET, now: float = NOW) -> UrlSigner:
    return UrlSigner(secret, base="http://files.test/v1/files/signed/", now=lambda: now)


def parts(url: str) -> tuple[str, str, str]:
    split = urlsplit(url)
    query = parse_qs(split.query)
    return split.path.removeprefix("/v1/files/signed/"), query["expires"][0], query["signature"][0]


def refuse(made: UrlSigner, method: str, key: str, expires: str, signature: str) -> None:
    with pytest.raises(SignatureRefusedError) as refused:
        made.check(method, key, expires, signature)
    assert refused.value.status == 403


def test_a_fresh_link_is_good_for_get_and_head() -> None:
    key, expires, signature = parts(signer().url("a/b.txt", 60))
    assert (key, expires) == ("a/b.txt", str(int(NOW) + 60))
    signer().check("GET", key, expires, signature)
    signer().check("HEAD", key, expires, signature)


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "PATCH", "get", "", "GET\n"])
def test_no_other_method(method: str) -> None:
    refuse(signer(), method, *parts(signer().url("a/b.txt", 60)))


def test_it_ends_at_its_second() -> None:
    key, expires, signature = parts(signer().url("a/b.txt", 60))
    signer(now=NOW + 59.9).check("GET", key, expires, signature)
    refuse(signer(now=NOW + 60), "GET", key, expires, signature)


def test_another_key_time_signature_or_secret_is_refused() -> None:
    key, expires, signature = parts(signer().url("a/b.txt", 60))
    refuse(signer(), "GET", "a/c.txt", expires, signature)
    refuse(signer(), "GET", key + "x", expires, signature)
    refuse(signer(), "GET", key, str(int(expires) + 1), signature)
    refuse(signer(), "GET", key, f"0{expires}", signature)
    refuse(signer(), "GET", key, f"+{expires}", signature)
    refuse(signer(), "GET", key, f"{expires} ", signature)
    refuse(signer(), "GET", key, "", "")
    refuse(signer(), "GET", key, expires, "")
    refuse(signer(), "GET", key, expires, signature[:-1])
    refuse(signer(), "GET", key, expires, signature + "=")
    refuse(signer(), "GET", key, expires, "é\ud800")
    refuse(signer("another-secret-0123456789-0123456789"), "GET", key, expires, signature)


def test_fields_cannot_be_shifted_into_each_other() -> None:
    _, expires, signature = parts(signer().url("a/b.txt", 60))
    refuse(signer(), f"GET\n{expires}", "a/b.txt", "", signature)
    refuse(signer(), "GET", "b.txt", f"{expires}\na", signature)


@pytest.mark.parametrize("seconds", [0, -1, 604_801])
def test_a_life_that_s3_would_refuse_is_refused(seconds: int) -> None:
    with pytest.raises(ValueError, match="lives 1 to"):
        signer().url("a", seconds)


@given(st.text(), st.text(), st.text())
def test_what_was_not_signed_is_refused(key: str, expires: str, signature: str) -> None:
    with pytest.raises(SignatureRefusedError):
        signer().check("GET", key, expires, signature)
