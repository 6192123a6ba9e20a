"""What can go wrong with Redis, as types. `redis.exceptions` stays inside this package.

A server that does not answer is a 503 for whoever asked over HTTP: the same request may work later. The
rest are our own mistakes, which no repetition mends, and so a plain 500. What a client reads tells nothing;
`str()` gives the reason to the log.
"""

from typing import ClassVar

from redis.exceptions import NoScriptError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.errors import ServiceError, UnavailableError


class RedisFault(ServiceError):  # noqa: N818 - "error" would be taken for redis.exceptions.RedisError
    """Any fault of Redis. `kind` is its name in metrics and spans.

    `maybe_applied`: the command was sent and its answer never came; it may or may not have taken effect.
    """

    kind: ClassVar[str] = "fault"

    def __init__(self, reason: str, *, maybe_applied: bool = False) -> None:
        super().__init__()
        self.reason = reason
        self.maybe_applied = maybe_applied

    def __str__(self) -> str:
        return self.reason


class RedisUnavailableFault(RedisFault, UnavailableError):  # noqa: N818 - see RedisFault
    """The server cannot be used now; 503 over HTTP."""


class RedisConnectionFault(RedisUnavailableFault):
    """No connection, or it broke."""

    kind = "connection"


class RedisTimeoutFault(RedisUnavailableFault):
    """No answer in time, or no connection of the pool was free in time."""

    kind = "timeout"


class RedisRefusingFault(RedisUnavailableFault):
    """The server answers and takes nothing: out of memory, read-only, cannot save, busy with a script."""

    kind = "refusing"


class RedisKeyFault(RedisFault):
    """A key, channel or pattern that is empty, not a string, or holds control characters."""

    kind = "key"


class RedisKeyTooLongFault(RedisKeyFault):
    """A key over its limit."""

    kind = "key_too_long"


class RedisValueTooLargeFault(RedisFault):
    """A value over its limit, before it was sent."""

    kind = "value_too_large"


class RedisWrongTypeFault(RedisFault):
    """The key holds another type than the command is for, or something that is not a number."""

    kind = "wrong_type"


class RedisEncodeFault(RedisFault):
    """A value that JSON cannot hold."""

    kind = "encode"


class RedisDecodeFault(RedisFault):
    """What is stored is not JSON, or not text."""

    kind = "decode"


class RedisCommandFault(RedisFault):
    """The server refused the command for another reason: wrong arguments, a script's error, no permission."""

    kind = "command"

    @property
    def unknown_script(self) -> bool:
        """The server does not have the script of an EVALSHA, and so has run nothing."""
        return isinstance(self.__cause__, NoScriptError)


_REFUSING = ("MISCONF", "BUSY ", "MASTERDOWN", "NOREPLICAS", "CLUSTERDOWN")
_NOT_A_NUMBER = ("is not an integer", "is not a valid float", "is not a float")


def lost(error: Exception, *, maybe_applied: bool) -> RedisUnavailableFault:
    """The fault of a connection that could not be had or broke."""
    if isinstance(error, (TimeoutError, RedisTimeoutError)) or isinstance(error.__cause__, TimeoutError):
        return RedisTimeoutFault(str(error) or "no answer in time", maybe_applied=maybe_applied)
    return RedisConnectionFault(str(error) or type(error).__name__, maybe_applied=maybe_applied)


def refused(error: ResponseError) -> RedisFault:
    """The fault that an error reply stands for."""
    text = str(error)
    if text.startswith("WRONGTYPE") or any(part in text for part in _NOT_A_NUMBER):
        return RedisWrongTypeFault(text)
    if isinstance(error, (OutOfMemoryError, ReadOnlyError)) or text.startswith(_REFUSING):
        return RedisRefusingFault(text or type(error).__name__)
    fault = RedisCommandFault(text)
    fault.__cause__ = error
    return fault
