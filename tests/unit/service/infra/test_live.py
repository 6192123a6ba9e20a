"""Positions, the window, and what the hub offers a client."""

import asyncio

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from observability import Telemetry
from service.errors import UnavailableError
from service.infra.event_bus import Event
from service.infra.live.client import RESTART
from service.infra.live.hub import LiveHub
from service.infra.live.interface import START, LiveEvent, Notice, Position, live_topics
from service.infra.live.window import Window
from service.settings import LiveSettings


def live(number: int, *topics: str, key: str = "") -> LiveEvent:
    return LiveEvent(Position(number, 0), key or str(number), "transaction.settled", topics or ("t",), b"{}")


@pytest.fixture
def hub(telemetry: Telemetry) -> LiveHub:
    hub = LiveHub(LiveSettings(buffer_events=3, keep_events=10, max_clients=2), telemetry)
    hub.synced()
    return hub


@given(st.integers(0, 10**16 - 1), st.integers(0, 10**16 - 1))
def test_a_position_survives_its_text(ms: int, number: int) -> None:
    assert Position.parse(str(Position(ms, number))) == (ms, number)


@given(st.text())
def test_text_is_a_position_or_nothing(text: str) -> None:
    found = Position.parse(text)
    assert found is None or [int(part) for part in text.split("-")] == list(found)


def test_an_event_reads_the_same_over_both_transports() -> None:
    event = LiveEvent(Position(5, 1), "k", "transaction.settled", ("t",), b'{"a":"\\n\xc3\xa4"}')
    assert event.sse == b'event: transaction.settled\ndata: {"a":"\\n\xc3\xa4"}\nid: 5-1\n\n'
    assert orjson.loads(event.text) == {
        "type": "event", "event": "transaction.settled", "id": "5-1", "data": {"a": "\n\u00e4"},
    }  # fmt: skip
    notice = Notice("reset", {"reason": "lost"}, Position(5, 1), retry=10)
    assert notice.sse == b'event: reset\ndata: {"reason":"lost"}\nid: 5-1\nretry: 10\n\n'
    assert orjson.loads(notice.text) == {"type": "reset", "reason": "lost", "id": "5-1", "retry": 10}


def test_where_an_event_is_seen() -> None:
    assert live_topics(Event("transaction.settled", {}, subject="1", user="alice")) == (
        "transaction.1", "user.alice",
    )  # fmt: skip
    assert live_topics(Event("transaction.settled", {}, user="system")) == ()
    assert live_topics(Event("user.changed", {}, subject="alice", user="alice")) == ("user.alice",)


TOPICS = st.lists(st.sampled_from("abc"), min_size=1, max_size=2, unique=True)


@given(st.lists(TOPICS, max_size=40), st.integers(1, 15), st.integers(0, 45), TOPICS)
def test_the_window_gives_all_that_was_missed_or_says_it_cannot(
    topics: list[list[str]], keep: int, after: int, wanted: list[str]
) -> None:
    window = Window(keep)
    events = [live(number, *each) for number, each in enumerate(topics, 1)]
    for event in events:
        assert window.add(event)
        assert not window.add(event)
    found = window.after(Position(after, 0), wanted)
    missed = [e for e in events if e.position > Position(after, 0) and set(e.topics) & set(wanted)]
    forgotten = len(events) - keep
    if after < forgotten:
        assert found is None
    else:
        assert found == missed
    assert len(window) == min(keep, len(events))
    assert set(window._by_topic) == {topic for each in topics[-keep:] for topic in each}


def test_the_window_knows_an_event_that_was_published_twice() -> None:
    window = Window(10)
    assert window.add(live(1, key="same"))
    assert not window.add(live(2, key="same"))
    assert window.last == Position(2, 0)
    assert window.after(START, ["t"]) == [live(1, key="same")]


async def test_a_client_gets_its_topics_once_and_in_order(hub: LiveHub) -> None:
    with hub.joined("sse", ["a", "b"]) as client:
        [ready] = await client.take(1)
        assert isinstance(ready, Notice)
        assert (ready.name, ready.data, ready.retry) == ("ready", {"topics": ["a", "b"], "live": True}, 3000)
        for event in (live(1, "a", "b"), live(2, "c"), live(3, "b")):
            hub.deliver(event)
        assert await client.take(1) == [live(1, "a", "b"), live(3, "b")]
        assert await client.take(0.01) == []
    hub.deliver(live(4, "a"))
    assert await client.take(0.01) == []


async def test_a_full_buffer_drops_the_client_in_the_middle_of_sending(
    hub: LiveHub, telemetry: Telemetry
) -> None:
    with hub.joined("sse", ["t"]) as slow, hub.joined("sse", ["t"]) as fast:
        await fast.take(1)
        reached = False

        async def send() -> None:
            nonlocal reached
            async with slow.attended():
                await asyncio.Event().wait()
                reached = True

        sending = asyncio.create_task(send())
        await asyncio.sleep(0)
        for number in range(1, 4):
            hub.deliver(live(number))
            assert await fast.take(1) == [live(number)]
        assert not sending.done()
        hub.deliver(live(4))
        await asyncio.wait_for(sending, 5)
        assert not reached
        assert await fast.take(1) == [live(4)]
        labels = {"transport": "sse", "reason": "slow"}
        assert telemetry.registry.get_sample_value("yardstick_live_dropped_total", labels) == 1
        assert telemetry.registry.get_sample_value("yardstick_live_clients", {"transport": "sse"}) == 1
        slow.left()
        slow.drop("slow")
        async with slow.attended():
            await asyncio.Event().wait()
    assert telemetry.registry.get_sample_value("yardstick_live_clients", {"transport": "sse"}) == 0


async def test_what_was_missed_is_not_held_against_a_client(hub: LiveHub) -> None:
    for number in range(1, 9):
        hub.deliver(live(number))
    with hub.joined("sse", ["t"], after="1-0") as client:
        for number in range(9, 12):
            hub.deliver(live(number))
        _, *first = await client.take(1)
        assert first + await client.take(1) == [live(number) for number in range(2, 12)]


async def test_one_that_was_ahead_of_this_instance_gets_nothing_twice(hub: LiveHub) -> None:
    hub.deliver(live(1))
    with hub.joined("sse", ["t"], after="2-0") as client:
        await client.take(1)
        hub.deliver(live(2))
        hub.deliver(live(3))
        assert await client.take(1) == [live(3)]


@pytest.mark.parametrize(
    ("after", "reason"), [("garbage", "unknown"), ("9999999999999999-0", "unknown"), ("0-0", "expired")]
)
async def test_a_position_that_is_not_known(hub: LiveHub, after: str, reason: str) -> None:
    for number in range(1, 13):
        hub.deliver(live(number))
    with hub.joined("sse", ["t"], after=after) as client:
        _, reset = await client.take(1)
        assert reset == Notice("reset", {"reason": reason}, Position(12, 0))


async def test_the_house_is_full_or_closing(hub: LiveHub) -> None:
    full = pytest.raises(UnavailableError, match="Too many")
    with hub.joined("sse", ["t"]), hub.joined("websocket", ["t"]), full, hub.joined("sse", ["t"]):
        pass
    with hub.joined("sse", ["t"]) as stuck:
        await hub.close(grace=0.01)
        assert stuck.done  # it was let go without having listened
        with pytest.raises(UnavailableError, match="Draining"), hub.joined("sse", ["t"]):
            pass


async def test_a_closing_hub_says_goodbye_first(hub: LiveHub) -> None:
    with hub.joined("sse", ["t"]) as client:
        hub.deliver(live(1))
        closing = asyncio.create_task(hub.close(grace=5))
        await asyncio.sleep(0)
        hub.deliver(live(2))
        items = [*await client.take(1), *await client.take(1)]
        assert [item.name for item in items] == ["ready", "transaction.settled", "closing"]
        assert client.done
        assert client.close_code == RESTART
    await asyncio.wait_for(closing, 1)


async def test_before_the_first_event_can_arrive_nobody_is_taken(telemetry: Telemetry) -> None:
    hub = LiveHub(LiveSettings(), telemetry)
    with pytest.raises(UnavailableError, match="not available yet"), hub.joined("sse", ["t"]):
        pass
