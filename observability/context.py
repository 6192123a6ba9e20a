"""Who and what the current request or job is about, carried beside the trace context.

One mutable `RequestContext` per request: a dependency that runs in a worker thread, or below a middleware
that starts a task of its own, fills in the same object, so that the access line at the edge knows the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from copy import copy
from dataclasses import dataclass, field


@dataclass(slots=True)
class RequestContext:
    """What is known about the caller. Empty text means unknown and is left out of the log line."""

    request_id: str = ""
    user_id: str = ""
    role: str = ""
    tenant: str = ""
    ip: str = ""
    user_agent: str = ""
    action: str = ""
    route: Callable[[], str] | None = field(default=None, init=False, repr=False, compare=False)
    """Gives the action once the router has found the endpoint; until then it is empty."""

    def resolved(self) -> RequestContext:
        """Itself, with the action filled in if it can be known by now."""
        if not self.action and self.route is not None:
            self.action = self.route()
        return self


current_context: ContextVar[RequestContext | None] = ContextVar("observability_request", default=None)
"""For code that sets and resets it itself; everybody else uses `current`, `bind` and `bound`."""

LOG_KEYS: tuple[tuple[str, str], ...] = (
    ("request_id", "requestId"),
    ("user_id", "userId"),
    ("role", "role"),
    ("tenant", "tenant"),
    ("ip", "ip"),
    ("user_agent", "userAgent"),
    ("action", "action"),
)
"""Attribute of `RequestContext` -> key in a log line, in the order in which they are written."""

_FIELDS = frozenset(attribute for attribute, _ in LOG_KEYS)
_ALIASES = {log_key: attribute for attribute, log_key in LOG_KEYS} | {"correlationId": "request_id"}


def current() -> RequestContext:
    """The context of the running request or job; an empty one that is bound to nothing outside of both."""
    context = current_context.get()
    return RequestContext() if context is None else context.resolved()


def bind(**values: str) -> RequestContext:
    """Fill in fields of the running request's context, for everything that is logged from here on.

    Outside of a request it starts a context for the running task. An unknown field is a TypeError.
    """
    if unknown := values.keys() - _FIELDS:
        raise TypeError(f"a request context has no field {', '.join(sorted(unknown))}")
    context = current_context.get()
    if context is None:
        context = RequestContext()
        current_context.set(context)
    for name, value in values.items():
        setattr(context, name, value)
    return context


@contextmanager
def bound(**values: str) -> Iterator[RequestContext]:
    """A changed copy of the context inside the block; the old one is back after it."""
    token = current_context.set(copy(current()))
    try:
        yield bind(**values)
    finally:
        current_context.reset(token)


def from_mapping(values: Mapping[str, object]) -> RequestContext:
    """A context from a job's metadata: `request_id` or `requestId`, `user_id` or `userId`, ...

    `correlationId` counts as the request ID. Unknown keys and empty values are left out.
    """
    known: dict[str, str] = {}
    for key, value in values.items():
        name = _ALIASES.get(key, key)
        if name in _FIELDS and value not in (None, "") and (key != "correlationId" or name not in known):
            known[name] = str(value)
    return RequestContext(**known)
