"""Spreads events over instances by one capped Redis stream: each instance reads all of it, in the same order.

One stream and not one per topic: there is one position for a client whatever it watches, one reader that
never has to be told of new topics, and no gap between what is kept and what arrives.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from redis.exceptions import RedisError

from observability import Telemetry, get_logger
from service.infra.event_bus import Event
from service.infra.live.hub import LiveHub
from service.infra.live.interface import START, LiveEvent, Position, live_topics
from service.infra.redis import RedisClient
from service.settings import LiveSettings

log = get_logger(__name__)

_PAUSE = (0.1, 2.0)
_BATCH = 500
_PAGE = 1000
_BLOCK_MS = 1000

Entry = tuple[bytes, Mapping[bytes, bytes] | None]


class RedisPublisher:
    """Adds events to the stream. A `LivePublisher`, to be subscribed to the event bus."""

    def __init__(self, redis: RedisClient, settings: LiveSettings, telemetry: Telemetry) -> None:
        self._redis = redis
        self._settings = settings
        self._published = telemetry.metrics.counter("live_published", "Events put into the spread.")
        self._retries = telemetry.metrics.counter(
            "live_publish_retries", "Attempts to put an event into the spread that failed."
        )
        self._down = False

    async def publish(self, event: Event) -> None:
        """Add the event for those who may see it; try again until it is in.

        Raises:
            ValueError: it is over the limit of the settings.
        """
        topics = live_topics(event)
        if not topics:
            return
        body = orjson.dumps(
            {
                "id": event.id,
                "at": event.at.isoformat(),
                "event": event.topic,
                "subject": event.subject,
                "data": event.data,
            }
        )
        if len(body) > self._settings.event_bytes:
            raise ValueError(f"a live event of {len(body)} bytes")
        await self._add({"key": event.id, "name": event.topic, "topics": " ".join(topics), "body": body})

    async def _add(self, fields: dict[Any, Any]) -> None:
        pause = _PAUSE[0]
        while True:
            try:
                await self._redis.xadd(
                    self._settings.stream, fields, maxlen=self._settings.keep_events, approximate=True
                )
            except (RedisError, OSError) as error:
                self._retries.inc()
                if not self._down:
                    log.warning("live.publish_failed", reason=str(error) or type(error).__name__)
                self._down = True
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE[1])
            else:
                self._down = False
                self._published.inc()
                return


class RedisReader:
    """Reads the stream for all clients of this process. A `LiveReader`."""

    def __init__(self, redis: RedisClient, settings: LiveSettings, hub: LiveHub, *, timeout: float) -> None:
        self._redis = redis
        self._key = settings.stream
        self._keep = settings.keep_events
        self._hub = hub
        # Shorter than the client's own patience with an answer.
        self._block = max(1, min(_BLOCK_MS, int(timeout * 500)))

    async def run(self) -> None:
        pause = _PAUSE[0]
        first = True
        while True:
            try:
                await self._sync(first=first)
                first = False
                self._hub.synced()
                pause = _PAUSE[0]
                while True:
                    await self._read()
            except Exception as error:
                # Also what is no outage: a reader that ended would leave every client in silence.
                self._hub.interrupted()
                outage = isinstance(error, RedisError | OSError)
                log.warning(
                    "live.unavailable",
                    stream=self._key,
                    reason=str(error) or type(error).__name__,
                    retryIn=pause,
                    exc_info=None if outage else error,
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE[1])

    async def _sync(self, *, first: bool) -> None:
        """Fill the window, or find out whether the stream still follows on what was read of it."""
        window = self._hub.window
        if first:
            await self._load()
            return
        newest = await self._redis.xrevrange(self._key, count=1)
        if newest and _position(newest[0]) < window.last:
            # Another server or an older state of it: positions started over.
            self._hub.lost(START)
            await self._load()
        else:
            await self._check_gap(window.last)

    async def _load(self) -> None:
        window = self._hub.window
        newest: list[Entry] = await self._redis.xrevrange(self._key, count=1)
        if not newest:
            return
        entries: list[Entry] = []
        upper = "+"
        while len(entries) < self._keep:
            count = min(_PAGE, self._keep - len(entries))
            page: list[Entry] = await self._redis.xrevrange(self._key, max=upper, count=count)
            entries += page
            if len(page) < count:
                break
            upper = f"({page[-1][0].decode()}"
        entries.reverse()
        # What was before the oldest one that is left, nobody knows.
        window.restart(_position(entries[0]) if entries else _position(newest[0]))
        for entry in entries[1:]:
            event = self._decode(entry)
            if event is not None:
                window.add(event)
            window.pass_by(_position(entry))

    async def _read(self) -> None:
        last = self._hub.window.last
        found = await self._redis.xread({self._key: str(last)}, count=_BATCH, block=self._block)
        if not found:
            return
        entries: list[Entry] = found[0][1]
        if len(entries) == _BATCH:
            await self._check_gap(last)
        for entry in entries:
            event = self._decode(entry)
            if event is not None:
                self._hub.deliver(event)
            self._hub.window.pass_by(_position(entry))

    async def _check_gap(self, last: Position) -> None:
        """If the entry after which we read is trimmed away, others may be that we have not read."""
        oldest = await self._redis.xrange(self._key, count=1)
        if oldest and _position(oldest[0]) > last:
            log.error("live.gap", stream=self._key, read=str(last), oldest=str(_position(oldest[0])))
            self._hub.lost(_position(oldest[0]))

    def _decode(self, entry: Entry) -> LiveEvent | None:
        try:
            return _event(entry)
        except (KeyError, ValueError) as error:
            self._hub.metrics.unreadable.inc()
            reason = f"{type(error).__name__}: {error}"
            log.warning("live.unreadable", stream=self._key, entry=entry[0].decode(), reason=reason)
            return None


def _event(entry: Entry) -> LiveEvent:
    fields = entry[1] or {}
    body = fields[b"body"]
    orjson.loads(body)
    return LiveEvent(
        position=_position(entry),
        key=fields[b"key"].decode(),
        name=fields[b"name"].decode(),
        topics=tuple(fields[b"topics"].decode().split()),
        body=body,
    )


def _position(entry: Entry) -> Position:
    ms, _, number = entry[0].partition(b"-")
    return Position(int(ms), int(number))
