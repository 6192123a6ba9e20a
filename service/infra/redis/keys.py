"""Keys: validated, and under one prefix, so that services may share a server."""

import re

from service.infra.redis.faults import RedisKeyFault, RedisKeyTooLongFault

MAX_KEY_LENGTH = 512
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_GLOB = re.compile(r"([*?\[\]\\])")


def check_key(key: object, *, what: str = "key") -> str:
    """The key, if it is 1 to 512 characters without control characters or lone surrogates.

    Raises:
        RedisKeyTooLongFault, RedisKeyFault: otherwise. The reason never repeats the key: it may be personal.
    """
    if not isinstance(key, str):
        raise RedisKeyFault(f"{what} is {type(key).__name__}, not str")
    if not key:
        raise RedisKeyFault(f"{what} is empty")
    if len(key) > MAX_KEY_LENGTH:
        raise RedisKeyTooLongFault(f"{what} has {len(key)} characters, at most {MAX_KEY_LENGTH}")
    if _CONTROL.search(key):
        raise RedisKeyFault(f"{what} holds a control character")
    return key


def glob_escape(text: str) -> str:
    """The pattern that matches this text alone."""
    return _GLOB.sub(r"\\\1", text)


class Keyspace:
    """The keys below a prefix. The limit of 512 characters is on the key as its user writes it."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._encoded = prefix.encode()

    def full(self, key: str) -> str:
        """The key as the server has it. Raises RedisKeyFault."""
        return self.prefix + check_key(key)

    def pattern(self, pattern: str) -> str:
        """A glob pattern as the server has it: the prefix is matched as it is. Raises RedisKeyFault."""
        return glob_escape(self.prefix) + check_key(pattern, what="pattern")

    def bare(self, full: bytes) -> str:
        """The key as its user writes it. Raises ValueError for one outside of the prefix."""
        if not full.startswith(self._encoded):
            raise ValueError("the key is outside of the prefix")
        return full[len(self._encoded) :].decode()
