"""The newest events, kept in memory so that a client that was away for a moment misses none."""

import heapq
from collections import deque
from collections.abc import Iterable
from itertools import takewhile

from service.infra.live.interface import START, LiveEvent, Position


class Window:
    """The last `keep` events of the stream. It holds every event after `floor`, up to `last`."""

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._events: deque[LiveEvent] = deque()
        self._by_topic: dict[str, deque[LiveEvent]] = {}
        self._keys: set[str] = set()
        self.floor = START
        self.last = START

    def __len__(self) -> int:
        return len(self._events)

    def restart(self, floor: Position) -> None:
        """Forget everything; events up to `floor` count as gone."""
        self._events.clear()
        self._by_topic.clear()
        self._keys.clear()
        self.floor = self.last = floor

    def pass_by(self, position: Position) -> None:
        """An entry that is no event was read: there is nothing more to come up to here."""
        self.last = max(self.last, position)

    def add(self, event: LiveEvent) -> bool:
        """Keep the event; False when it is known already, which happens when its publisher had to retry."""
        if event.position <= self.last:
            return False
        self.last = event.position
        if event.key in self._keys:
            return False
        self._events.append(event)
        self._keys.add(event.key)
        for topic in event.topics:
            self._by_topic.setdefault(topic, deque()).append(event)
        if len(self._events) > self._keep:
            self._forget(self._events.popleft())
        return True

    def after(self, position: Position, topics: Iterable[str]) -> list[LiveEvent] | None:
        """What happened in `topics` since, in order and each once; None when that is no longer known."""
        if position < self.floor:
            return None
        found = (
            reversed(list(takewhile(lambda event: event.position > position, reversed(events))))
            for topic in set(topics)
            if (events := self._by_topic.get(topic))
        )
        merged = heapq.merge(*found, key=lambda event: event.position)
        return list({event.position: event for event in merged}.values())

    def _forget(self, event: LiveEvent) -> None:
        self.floor = event.position
        self._keys.discard(event.key)
        for topic in event.topics:
            events = self._by_topic[topic]
            events.popleft()
            if not events:
                del self._by_topic[topic]
