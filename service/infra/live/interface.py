"""What live streams are made of: positions, events, notices, and the two ends of what spreads them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, Self

import orjson
from fastapi.sse import format_sse_event

from service.infra.event_bus import Event

Transport = Literal["sse", "websocket"]

_POSITION = re.compile(r"[0-9]{1,16}-[0-9]{1,16}", re.ASCII)


class Position(NamedTuple):
    """A place in the stream of all events; grows with each. The same on every instance."""

    ms: int
    number: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The position as clients and Redis write it; None when it is none."""
        if not _POSITION.fullmatch(text):
            return None
        ms, _, number = text.partition("-")
        return cls(int(ms), int(number))

    def __str__(self) -> str:
        return f"{self.ms}-{self.number}"


START = Position(0, 0)


@dataclass(frozen=True)
class LiveEvent:
    """An event on its way to clients. Its texts are made once, however many clients get it."""

    position: Position
    key: str
    """The event's own ID: it is the same if the event was put into the stream twice."""
    name: str
    topics: tuple[str, ...]
    body: bytes
    """JSON object."""

    @cached_property
    def sse(self) -> bytes:
        return format_sse_event(event=self.name, data_str=self.body.decode(), id=str(self.position))

    @cached_property
    def text(self) -> str:
        head = orjson.dumps({"type": "event", "event": self.name, "id": str(self.position)})
        return f'{head[:-1].decode()},"data":{self.body.decode()}}}'


@dataclass(frozen=True)
class Notice:
    """Something about the stream itself: ready, reset, degraded, restored, closing, error.

    With a position, it is where a client that reconnects goes on. `retry` is in milliseconds.
    """

    name: str
    data: Mapping[str, Any]
    position: Position | None = None
    retry: int | None = None

    @cached_property
    def sse(self) -> bytes:
        position = None if self.position is None else str(self.position)
        return format_sse_event(
            event=self.name, data_str=orjson.dumps(self.data).decode(), id=position, retry=self.retry
        )

    @cached_property
    def text(self) -> str:
        message: dict[str, Any] = {"type": self.name}
        if self.position is not None:
            message["id"] = str(self.position)
        if self.retry is not None:
            message["retry"] = self.retry
        return orjson.dumps(message | dict(self.data)).decode()


Item = LiveEvent | Notice


def live_topics(event: Event) -> tuple[str, ...]:
    """Where clients see an event: `transaction.<subject>`, and `user.<user>` if it concerns one."""
    kind = event.topic.partition(".")[0]
    topics = [f"{kind}.{event.subject}"] if event.subject else []
    if event.user and event.user != "system":
        topics.append(f"user.{event.user}")
    return tuple(dict.fromkeys(topics))


class LivePublisher(Protocol):
    """Brings an event to every instance."""

    async def publish(self, event: Event) -> None:
        """Returns when the event is on its way to all instances; waits out an outage."""


class LiveReader(Protocol):
    """Brings the events of every instance to this one's clients."""

    async def run(self) -> None:
        """Read until cancelled, through every outage."""
