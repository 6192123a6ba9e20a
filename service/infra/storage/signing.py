"""Signed URLs for the local disk: an HMAC over method, expiry and key, as S3 has of its own."""

import hashlib
import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from urllib.parse import quote

from service.infra.storage.errors import SignatureRefusedError
from service.infra.storage.interface import MAX_URL_SECONDS

SIGNED_PATH = "/v1/files/signed"
"""Where the API answers them."""
# A key that also signs something else must not make these signatures valid there.
_PURPOSE = b"yardstick file url v1\n"


class UrlSigner:
    """Makes and checks URLs `<base>/<key>?expires=<unix seconds>&signature=<base64url>`."""

    def __init__(self, secret: str, *, base: str, now: Callable[[], float] = time.time) -> None:
        self._secret = secret.encode()
        self._base = base.rstrip("/")
        self._now = now

    def url(self, key: str, seconds: int, *, method: str = "GET") -> str:
        """A URL that is valid for so long. Raises ValueError for a time that S3 would not sign either."""
        if not 1 <= seconds <= MAX_URL_SECONDS:
            raise ValueError(f"a signed URL lives 1 to {MAX_URL_SECONDS} seconds, not {seconds}")
        expires = int(self._now()) + seconds
        return f"{self._base}/{quote(key)}?expires={expires}&signature={self._sign(method, expires, key)}"

    def check(self, method: str, key: str, expires: str, signature: str) -> None:
        """Raises SignatureRefusedError. HEAD is allowed where GET is, as it says less."""
        # Compared before anything is read from it, and as text: `1_000` and `+1` are numbers for int() too.
        expected = self._sign("GET" if method == "HEAD" else method, expires, key)
        genuine = hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace"))
        if not genuine or not expires.isascii() or not expires.isdecimal() or int(expires) <= self._now():
            raise SignatureRefusedError

    def _sign(self, method: str, expires: int | str, key: str) -> str:
        text = f"{method}\n{expires}\n{key}".encode("utf-8", "replace")
        digest = hmac.new(self._secret, _PURPOSE + text, hashlib.sha256).digest()
        return urlsafe_b64encode(digest).rstrip(b"=").decode()
