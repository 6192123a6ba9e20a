"""Who streams, and what they may see. The one place that changes when the service learns to authenticate."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import HTTPConnection

from service.errors import (
    FieldFault,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    UnauthenticatedError,
)
from service.settings import Environment, LiveSettings

USER_HEADER = "X-User-Id"
LIVE_EVENTS = "transaction.*"
"""The events of the bus that clients may come to see."""

_USER_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever opened the stream."""

    user: str


class Authorizer(Protocol):
    """Decides for every stream."""

    @property
    def enabled(self) -> bool:
        """Whether there are streams at all."""

    def principal(self, connection: HTTPConnection) -> Principal:
        """Who asks. Raises UnauthenticatedError; NotFoundError when there are no streams for anybody."""

    def allow(self, principal: Principal, topics: Iterable[str]) -> list[str]:
        """The topics as they are published, each once.

        Raises:
            InvalidRequestError: one of them is no topic.
            ForbiddenError: one of them is not theirs to see.
        """


class NoStreams:
    """Nobody: nothing here could tell one client from another."""

    enabled = False

    def principal(self, connection: HTTPConnection) -> Principal:
        raise NotFoundError

    def allow(self, principal: Principal, topics: Iterable[str]) -> list[str]:
        raise ForbiddenError


class TrustedHeader:
    """Believes `X-User-Id`, for development and tests.

    A user sees `user.<own id>`, and any `transaction.<id>`: like reading one, that takes knowing its ID.
    """

    enabled = True

    def principal(self, connection: HTTPConnection) -> Principal:
        user = connection.headers.get(USER_HEADER, "")
        if not _USER_ID.fullmatch(user):
            raise UnauthenticatedError(f"{USER_HEADER} names no user")
        return Principal(user)

    def allow(self, principal: Principal, topics: Iterable[str]) -> list[str]:
        return list(dict.fromkeys(self._allow(principal, topic) for topic in topics))

    def _allow(self, principal: Principal, topic: str) -> str:
        kind, _, name = topic.partition(".")
        if kind == "user" and _USER_ID.fullmatch(name):
            if name != principal.user:
                raise ForbiddenError("That is another user's topic")
            return topic
        if kind == "transaction" and _UUID.fullmatch(name):
            return topic.lower()
        raise InvalidRequestError(fields=[FieldFault("topic", "must be user.<id> or transaction.<uuid>")])


def authorizer(settings: LiveSettings, environment: Environment) -> Authorizer:
    """The one that the settings ask for."""
    access = settings.access or ("header" if environment in ("development", "test") else "off")
    return TrustedHeader() if access == "header" else NoStreams()
