"""The in-process event bus: what happened, told to every part of this process that wants to know."""

import asyncio
import contextvars
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from observability import Telemetry, get_logger
from service.tasks import end

log = get_logger(__name__)

Handler = Callable[["Event"], Awaitable[None]]

_SEGMENT = r"[A-Za-z0-9_-]+"
_TOPIC = re.compile(rf"{_SEGMENT}(?:\.{_SEGMENT})*")
QUEUE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, after it was committed.

    `topic` is dotted (`transaction.settled`), `data` is JSON, `subject` the public ID of what it is about,
    `user` and `tenant` whom it concerns; empty text means nobody in particular.

    Raises:
        ValueError: the topic is empty or has anything but letters, digits, `_` and `-` between its dots.
    """

    topic: str
    data: Mapping[str, Any]
    subject: str = ""
    user: str = ""
    tenant: str = ""
    id: str = field(default_factory=lambda: uuid4().hex)
    at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        if not _TOPIC.fullmatch(self.topic):
            raise ValueError(f"{self.topic!r} is not a topic")


def matcher(pattern: str) -> Callable[[str], bool]:
    """Tells whether a topic matches: `*` stands for one segment, `**` for any number of them, also none.

    Raises:
        ValueError: a segment of the pattern is neither a name nor a wildcard.
    """
    parts = []
    for segment in pattern.split("."):
        match segment:
            case "*":
                parts.append(r"[^.]+\.")
            case "**":
                if parts[-1:] != [_MANY]:  # two in a row say no more than one, and would cost backtracking
                    parts.append(_MANY)
            case _ if re.fullmatch(_SEGMENT, segment):
                parts.append(re.escape(segment) + r"\.")
            case _:
                raise ValueError(f"{pattern!r} is not a topic pattern")
    fits = re.compile("".join(parts)).fullmatch
    return lambda topic: fits(f"{topic}.") is not None


_MANY = r"(?:[^.]+\.)*"


class BusMetrics:
    """Series of the bus. The label `subscriber` is a name given in the code."""

    def __init__(self, telemetry: Telemetry) -> None:
        metrics = telemetry.metrics
        self.published = metrics.counter("event_bus_published", "Events published in this process.")
        self.failures = metrics.counter(
            "event_bus_failures", "Events whose subscriber raised an exception.", ("subscriber",)
        )
        self.dropped = metrics.counter(
            "event_bus_dropped", "Events a subscriber never saw: its queue was full.", ("subscriber",)
        )
        self.waiting = metrics.gauge("event_bus_waiting", "Events in a subscriber's queue.", ("subscriber",))


class Subscription:
    """One subscriber with a queue and a task of its own, so that it can hold up only itself."""

    def __init__(
        self, pattern: str, handler: Handler, *, name: str, queue_size: int, metrics: BusMetrics
    ) -> None:
        self.name = name
        self.matches = matcher(pattern)
        self._handler = handler
        self._queue: asyncio.Queue[tuple[Event, contextvars.Context]] = asyncio.Queue(queue_size)
        self._failures = metrics.failures.labels(name)
        self._dropped = metrics.dropped.labels(name)
        metrics.waiting.labels(name).set_function(lambda: float(self._queue.qsize()))
        self._overflowing = False
        self._busy = False
        self._task = asyncio.create_task(self._run(), name=f"event-bus:{name}")

    @property
    def idle(self) -> bool:
        return self._queue.empty() and not self._busy

    def offer(self, event: Event) -> None:
        """Queue the event, or count it as dropped: a publisher never waits."""
        full = self._queue.full()
        if full:
            self._dropped.inc()
        else:
            self._queue.put_nowait((event, contextvars.copy_context()))
        if full and not self._overflowing:  # one line for each time it falls behind, not one for each event
            log.error("event_bus.overflow", subscriber=self.name, topic=event.topic)
        self._overflowing = full

    async def drained(self) -> None:
        await self._queue.join()

    async def stop(self) -> int:
        """End now; gives the number of events that were not handled."""
        unhandled = self._queue.qsize() + self._busy
        await end(self._task)
        if unhandled:
            self._dropped.inc(unhandled)
        return unhandled

    async def _run(self) -> None:
        while True:
            event, context = await self._queue.get()
            self._busy = True
            # In the publisher's context, so that the subscriber's log lines and spans belong to the request.
            task = asyncio.create_task(self._handle(event), context=context)
            try:
                await asyncio.wait({task})
            finally:
                task.cancel()
                self._queue.task_done()

    async def _handle(self, event: Event) -> None:
        try:
            await self._handler(event)
        except Exception:
            # Whatever it is: a subscriber's failure is its own.
            self._failures.inc()
            log.exception(
                "event_bus.subscriber_failed", subscriber=self.name, topic=event.topic, eventId=event.id
            )
        finally:
            self._busy = False  # here, not a turn of the loop later: who stops now counts it as handled


class EventBus:
    """Publishes events to the subscribers of this process, in order for each of them.

    It keeps nothing: an event is lost with its process. What must not be lost is a job in the outbox.
    Publish through `UnitOfWork.after_commit`, in the event loop's thread.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._metrics = BusMetrics(telemetry)
        self._subscriptions: list[Subscription] = []
        self._closed = False

    def subscribe(
        self, pattern: str, handler: Handler, *, name: str, queue_size: int = QUEUE_SIZE
    ) -> Callable[[], Awaitable[int]]:
        """Call `handler` for every event that matches, one after the other; gives what ends it again.

        Raises:
            ValueError: the pattern is none.
        """
        subscription = Subscription(pattern, handler, name=name, queue_size=queue_size, metrics=self._metrics)
        self._subscriptions.append(subscription)

        async def unsubscribe() -> int:
            if subscription not in self._subscriptions:
                return 0
            self._subscriptions.remove(subscription)
            return await subscription.stop()

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Tell the subscribers. Returns at once and never raises for their sake."""
        if self._closed:
            log.error("event_bus.closed", topic=event.topic, eventId=event.id)
            return
        self._metrics.published.inc()
        for subscription in tuple(self._subscriptions):
            if subscription.matches(event.topic):
                subscription.offer(event)

    async def drained(self) -> None:
        """Until the subscribers have handled what is queued, and what they published meanwhile."""
        while not all(subscription.idle for subscription in self._subscriptions):
            await asyncio.gather(*(subscription.drained() for subscription in self._subscriptions))

    async def close(self, grace: float = 5.0) -> None:
        """Let the subscribers finish what is queued, for at most `grace` seconds. Again: does nothing."""
        if self._closed:
            return
        try:
            async with asyncio.timeout(grace):
                await self.drained()
        except TimeoutError:
            log.warning("event_bus.drain_cut_off", seconds=grace)
        self._closed = True
        for subscription in self._subscriptions:
            if unhandled := await subscription.stop():
                log.error("event_bus.unhandled", subscriber=subscription.name, events=unhandled)
