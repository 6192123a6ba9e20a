"""The event bus: who hears what, and how little one subscriber matters to another."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability import Telemetry, bound, get_logger
from service.infra.event_bus import Event, EventBus, matcher

log = get_logger(__name__)

SEGMENTS = st.lists(st.sampled_from(["a", "b", "ab", "x-1"]), min_size=1, max_size=5)
PATTERNS = st.lists(st.sampled_from(["a", "b", "ab", "*", "**"]), min_size=1, max_size=5)


@pytest.fixture
async def bus(telemetry: Telemetry) -> AsyncIterator[EventBus]:
    bus = EventBus(telemetry)
    yield bus
    await bus.close(grace=1.0)


class Heard:
    """A subscriber that remembers."""

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.something = asyncio.Event()

    async def __call__(self, event: Event) -> None:
        self.topics.append(event.topic)
        self.something.set()


def event(topic: str = "user.created") -> Event:
    return Event(topic, {})


@pytest.mark.parametrize(
    ("pattern", "topics", "others"),
    [
        ("user.created", ["user.created"], ["user.createdx", "user", "xuser.created", "user.created.now"]),
        ("user.*", ["user.created", "user.x-y_z"], ["user", "user.a.b", "users.created", ""]),
        ("*.created", ["user.created"], ["created", "a.user.created"]),
        ("user.**", ["user", "user.created", "user.a.b.c"], ["users", "a.user"]),
        ("**", ["user", "user.created"], []),
        ("**.failed", ["failed", "a.failed", "a.b.failed"], ["a.failed.b"]),
        ("a.**.b.*", ["a.b.c", "a.x.y.b.c"], ["a.b", "a.b.c.d"]),
    ],
)
def test_wildcards(pattern: str, topics: list[str], others: list[str]) -> None:
    matches = matcher(pattern)
    assert [topic for topic in topics if not matches(topic)] == []
    assert [topic for topic in others if matches(topic)] == []


@given(PATTERNS, SEGMENTS)
def test_a_pattern_matches_what_its_definition_says(pattern: list[str], topic: list[str]) -> None:
    def fits(pattern: list[str], topic: list[str]) -> bool:
        match pattern:
            case []:
                return not topic
            case ["**", *rest]:
                return any(fits(rest, topic[skip:]) for skip in range(len(topic) + 1))
            case [first, *rest]:
                return bool(topic) and first in ("*", topic[0]) and fits(rest, topic[1:])
        raise AssertionError

    assert matcher(".".join(pattern))(".".join(topic)) == fits(pattern, topic)


@pytest.mark.parametrize("pattern", ["", ".", "a.", ".a", "a..b", "a.***", "a b", "us*r", "a\n"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not a topic pattern"):
        matcher(pattern)


@pytest.mark.parametrize("topic", ["", ".", "a.", "user.*", "a b", "a\n", "\u00e4", "a" * 10 + "."])
def test_what_is_no_topic(topic: str) -> None:
    with pytest.raises(ValueError, match="is not a topic"):
        event(topic)


async def test_each_subscriber_hears_what_it_asked_for_in_order(bus: EventBus) -> None:
    users, everything = Heard(), Heard()
    bus.subscribe("user.*", users, name="users")
    bus.subscribe("**", everything, name="everything")
    topics = ["user.created", "order.paid", "user.deleted", "user.created"]
    for topic in topics:
        bus.publish(event(topic))
    await bus.close()
    assert everything.topics == topics
    assert users.topics == ["user.created", "user.deleted", "user.created"]


async def test_a_subscriber_that_fails_or_hangs_harms_nobody_and_goes_on(
    bus: EventBus, telemetry: Telemetry, tmp_path: Path
) -> None:
    heard, calls = Heard(), 0

    async def fail(found: Event) -> None:
        nonlocal calls
        calls += 1
        raise ZeroDivisionError(found.topic)

    async def hang(found: Event) -> None:
        await asyncio.Event().wait()

    bus.subscribe("**", fail, name="failing")
    bus.subscribe("**", hang, name="hanging", queue_size=3)
    bus.subscribe("**", heard, name="good")
    for _ in range(10):
        bus.publish(event())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    await bus.close(grace=0.2)
    assert len(heard.topics) == calls == 10

    def counted(name: str, subscriber: str) -> float | None:
        return telemetry.registry.get_sample_value(
            f"yardstick_event_bus_{name}_total", {"subscriber": subscriber}
        )

    assert counted("failures", "failing") == 10
    assert counted("failures", "good") == 0
    # One runs, three wait, six had no room; the four are counted when the bus gives them up.
    assert counted("dropped", "hanging") == 10
    assert counted("dropped", "good") == 0
    lines = [orjson.loads(line) for line in (tmp_path / "log.jsonl").read_bytes().splitlines()]
    events = [line["event"] for line in lines]
    assert events.count("event_bus.overflow") == 1
    assert events.count("event_bus.subscriber_failed") == 10
    assert "ZeroDivisionError" in str(lines)


async def test_a_subscriber_that_is_cancelled_from_within_goes_on(bus: EventBus) -> None:
    calls = 0

    async def cancel(found: Event) -> None:
        nonlocal calls
        calls += 1
        raise asyncio.CancelledError

    bus.subscribe("**", cancel, name="cancelling")
    bus.publish(event())
    bus.publish(event())
    await bus.close(grace=1.0)
    assert calls == 2


async def test_close_lets_queues_run_empty_even_when_events_cause_events(bus: EventBus) -> None:
    heard = Heard()

    async def relay(found: Event) -> None:
        await asyncio.sleep(0.01)
        bus.publish(event("second"))

    bus.subscribe("first", relay, name="relay")
    bus.subscribe("second", heard, name="heard")
    for _ in range(5):
        bus.publish(event("first"))
    await bus.close()
    assert heard.topics == ["second"] * 5
    bus.publish(event("second"))
    await bus.close()
    assert len(heard.topics) == 5


async def test_one_that_left_hears_no_more(bus: EventBus) -> None:
    heard = Heard()
    leave = bus.subscribe("**", heard, name="leaving")
    bus.publish(event())
    await heard.something.wait()
    assert await leave() == 0
    assert await leave() == 0
    bus.publish(event())
    await bus.close()
    assert len(heard.topics) == 1


async def test_a_subscriber_logs_with_the_publishers_request(bus: EventBus, tmp_path: Path) -> None:
    async def write(found: Event) -> None:
        log.info("heard")

    bus.subscribe("**", write, name="writing")
    with bound(request_id="r-1"):
        bus.publish(event())
    await bus.close()
    lines = [orjson.loads(line) for line in (tmp_path / "log.jsonl").read_bytes().splitlines()]
    assert [line["requestId"] for line in lines if line["event"] == "heard"] == ["r-1"]
