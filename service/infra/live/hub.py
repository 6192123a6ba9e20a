"""The clients of this instance, by topic, and what each of them is told."""

import asyncio
import random
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from observability import Telemetry, get_logger
from service.errors import UnavailableError
from service.infra.live.client import RESTART, LiveClient, Reason
from service.infra.live.interface import LiveEvent, Notice, Position, Transport
from service.infra.live.window import Window
from service.settings import LiveSettings

log = get_logger(__name__)

_FUTURE_MS = 60_000
TRANSPORTS: tuple[Transport, ...] = ("sse", "websocket")
REASONS: tuple[Reason, ...] = ("slow", "cut")


class LiveMetrics:
    """Series of the streams."""

    def __init__(self, telemetry: Telemetry) -> None:
        metrics = telemetry.metrics
        self.clients = metrics.gauge("live_clients", "Clients with an open stream.", ("transport",))
        self.dropped = metrics.counter(
            "live_dropped",
            "Clients let go: too slow, or cut off by the drain.",
            ("transport", "reason"),
        )
        for transport in TRANSPORTS:
            self.clients.labels(transport).set(0)
            for reason in REASONS:
                self.dropped.labels(transport, reason)
        self.queued = metrics.counter("live_queued", "Events queued for a client.")
        self.received = metrics.counter("live_received", "Events read from the spread.")
        self.unreadable = metrics.counter("live_unreadable", "Entries of the spread that are no event.")
        self.resumes = metrics.counter("live_resumes", "Clients that came back.", ("result",))
        self.resumed = self.resumes.labels("resumed")
        self.reset = self.resumes.labels("reset")
        self.connected = metrics.gauge("live_connected", "1 while events of other instances arrive.")


class LiveHub:
    """Joins clients, gives them events, and lets them go.

    It takes clients from the first `synced` on, and keeps them while the spread is down: they are told.
    """

    def __init__(self, settings: LiveSettings, telemetry: Telemetry) -> None:
        self._settings = settings
        self.metrics = LiveMetrics(telemetry)
        self.window = Window(settings.keep_events)
        self._clients: set[LiveClient] = set()
        self._by_topic: dict[str, set[LiveClient]] = {}
        self._synced = asyncio.Event()
        self._connected = False
        self._closing = False
        self._empty = asyncio.Event()

    async def started(self, wait: float = 3.0) -> None:
        """Wait a moment for the first `synced`: a client in a browser does not ask twice."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._synced.wait()

    @contextmanager
    def joined(
        self, transport: Transport, topics: Iterable[str], *, after: str | None = None
    ) -> Iterator[LiveClient]:
        """A client inside the block. It starts now, or after the event that `after` names.

        A position that is no longer known, or never was, makes a `reset`: the client has to look for itself.

        Raises:
            UnavailableError: draining, full, or the spread has not been reached since the process started.
        """
        if self._closing:
            raise UnavailableError("Draining", retry_after=1)
        if not self._synced.is_set():
            raise UnavailableError("Live streams are not available yet")
        if len(self._clients) >= self._settings.max_clients:
            raise UnavailableError("Too many live streams", retry_after=10)
        settings, position = self._settings, self.window.last
        client = LiveClient(transport, topics, position, limit=settings.buffer_events, on_drop=self._on_drop)
        ready = Notice(
            "ready",
            {"topics": sorted(client.topics), "live": self._connected},
            # One who comes back keeps its own place until it has had what it missed.
            position if after is None else None,
            settings.retry_ms,
        )
        client.replay([ready])
        if after is not None:
            self._resume(client, after)
        self._clients.add(client)
        for topic in client.topics:
            self._by_topic.setdefault(topic, set()).add(client)
        self.metrics.clients.labels(transport).inc()
        try:
            yield client
        finally:
            self._leave(client)

    def subscribe(self, client: LiveClient, topics: Iterable[str]) -> None:
        """From now on also these."""
        for topic in topics:
            client.topics.add(topic)
            self._by_topic.setdefault(topic, set()).add(client)

    def unsubscribe(self, client: LiveClient, topics: Iterable[str]) -> None:
        for topic in topics:
            client.topics.discard(topic)
            self._forget(client, topic)

    def deliver(self, event: LiveEvent) -> None:
        """Give a new event to the clients that see one of its topics, once to each."""
        self.metrics.received.inc()
        if not self.window.add(event):
            return
        for topic in event.topics:
            # A copy: a client that is dropped leaves the set.
            for client in tuple(self._by_topic.get(topic, ())):
                if client.offer(event):
                    self.metrics.queued.inc()

    def synced(self) -> None:
        """The window is filled and events arrive."""
        first = not self._synced.is_set()
        self._synced.set()
        self._connect(True, "restored", told=not first)

    def interrupted(self) -> None:
        """Events of other instances do not arrive; what is missed comes later."""
        self._connect(False, "degraded", told=self._synced.is_set())

    def lost(self, floor: Position) -> None:
        """Events up to `floor` may be missing: every client has to look for itself."""
        self.window.restart(floor)
        for client in tuple(self._clients):
            client.cursor = floor
            client.offer(Notice("reset", {"reason": "lost"}, floor))

    async def close(self, grace: float = 1.0) -> None:
        """Take no more clients, send those there are elsewhere, and cut off who does not listen in time."""
        self._closing = True
        self._empty.clear()
        for client in tuple(self._clients):
            # Not all at the same moment at the next instance's door.
            retry = int(self._settings.retry_ms * random.uniform(0.3, 1))  # noqa: S311 - spreads, no secret
            client.end(RESTART, Notice("closing", {"reason": "draining"}, retry=retry))
        if not self._clients:
            return
        try:
            async with asyncio.timeout(grace):
                await self._empty.wait()
        except TimeoutError:
            for client in tuple(self._clients):
                client.drop("cut")

    def _resume(self, client: LiveClient, after: str) -> None:
        position = Position.parse(after)
        newest = max(self.window.last.ms, int(time.time() * 1000))
        if position is not None and position.ms > newest + _FUTURE_MS:
            position = None
        missed = None if position is None else self.window.after(position, client.topics)
        if position is None or missed is None:
            self.metrics.reset.inc()
            reason = "unknown" if position is None else "expired"
            client.replay([Notice("reset", {"reason": reason}, self.window.last)])
            return
        self.metrics.resumed.inc()
        self.metrics.queued.inc(len(missed))
        # Another instance may have been ahead of this one: then it has had the next ones from there.
        client.cursor = max(position, self.window.last)
        client.replay(missed)

    def _connect(self, connected: bool, notice: str, *, told: bool) -> None:
        changed, self._connected = connected != self._connected, connected
        self.metrics.connected.set(connected)
        if changed and told:
            for client in tuple(self._clients):
                client.offer(Notice(notice, {"live": connected}))

    def _on_drop(self, client: LiveClient, reason: Reason) -> None:
        self.metrics.dropped.labels(client.transport, reason).inc()
        log.warning("live.dropped", transport=client.transport, reason=reason, topics=len(client.topics))
        self._leave(client)

    def _leave(self, client: LiveClient) -> None:
        if client not in self._clients:
            return
        self._clients.discard(client)
        for topic in client.topics:
            self._forget(client, topic)
        self.metrics.clients.labels(client.transport).dec()
        if not self._clients:
            self._empty.set()

    def _forget(self, client: LiveClient, topic: str) -> None:
        watching = self._by_topic.get(topic)
        if watching is not None:
            watching.discard(client)
            if not watching:
                del self._by_topic[topic]
