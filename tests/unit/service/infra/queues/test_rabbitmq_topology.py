"""The table of RabbitMQ's queues, walked as the broker would walk it."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.infra.queues.domains import DOMAINS
from service.infra.queues.interface import PRIORITIES, Priority
from service.infra.queues.rabbitmq.topology import (
    LEVELS,
    LONGEST_MS,
    RUNGS,
    UNIT_MS,
    QueueType,
    Route,
    Topology,
    wait_units,
)

CLASSIC, QUORUM = Topology("yardstick"), Topology("yardstick", "quorum")
BOTH = pytest.mark.parametrize("topology", [CLASSIC, QUORUM], ids=lambda one: one.type)
types: st.SearchStrategy[QueueType] = st.sampled_from(["classic", "quorum"])
priorities: st.SearchStrategy[Priority] = st.sampled_from(PRIORITIES)
names = st.builds(
    "{}.{}.v{}".format,
    st.sampled_from(list(DOMAINS)),
    st.lists(st.sampled_from([*DOMAINS, "settle", "send_2", "x"]), min_size=1, max_size=4).map(".".join),
    st.integers(1, 99),
)


def matches(pattern: str, key: str) -> bool:
    """AMQP's topic match: `*` is one word, `#` any number of them."""

    def match(pattern: list[str], key: list[str]) -> bool:
        if not pattern:
            return not key
        if pattern[0] == "#":
            return match(pattern[1:], key) or (bool(key) and match(pattern, key[1:]))
        return bool(key) and pattern[0] in ("*", key[0]) and match(pattern[1:], key[1:])

    return match(pattern.split("."), key.split("."))


def arrivals(topology: Topology, route: Route) -> list[tuple[str, int]]:
    """The work queues that a message ends in, and after how many milliseconds."""
    rungs = {queue.name: queue for queue in topology.rungs}
    found, waiting = [], deque([(route.exchange, 0)])
    while waiting:
        exchange, waited = waiting.popleft()
        for binding in topology.bindings:
            if binding.source != exchange or not matches(binding.key, route.key):
                continue
            if binding.to == "exchange":
                waiting.append((binding.target, waited))
            elif rung := rungs.get(binding.target):
                beyond = str(rung.arguments["x-dead-letter-exchange"])
                waiting.append((beyond, waited + int(rung.arguments["x-message-ttl"])))
            else:
                found.append((binding.target, waited))
    return found


@given(types, priorities, names, st.floats(-10, LONGEST_MS / 1000))
def test_a_job_comes_out_in_one_queue_of_its_domain_when_it_is_due(
    kind: QueueType, priority: Priority, name: str, delay: float
) -> None:
    topology = Topology("yardstick", kind)
    ((queue, waited),) = arrivals(topology, topology.route(priority, name, delay))
    urgent = kind == "quorum" and priority in ("critical", "high")
    assert queue == f"yardstick.{name.partition('.')[0]}" + (".urgent" if urgent else "")
    wanted = max(0.0, delay * 1000)
    assert wanted - 1e-3 <= waited <= wanted + UNIT_MS


@given(st.floats(-1e9, 1e9), st.floats(-1e9, 1e9))
def test_a_longer_delay_never_waits_less(one: float, other: float) -> None:
    shorter, longer = sorted((one, other))
    assert 0 <= wait_units(shorter) <= wait_units(longer) <= 2**RUNGS - 1


@pytest.mark.parametrize(
    ("delay", "units"),
    [(-1, 0), (0, 0), (0.0001, 1), (0.032, 1), (0.033, 2), (1, 32), (LONGEST_MS, 2**RUNGS - 1)],
)
def test_delays_are_rounded_up_to_the_unit(delay: float, units: int) -> None:
    assert wait_units(delay) == units


@given(names.filter(lambda name: len(name) <= 100), st.floats(0, 1e7))
def test_keys_fit_into_the_protocol(name: str, delay: float) -> None:
    assert len(CLASSIC.route("critical", name.ljust(100, "x"), delay).key) <= 255


@BOTH
def test_the_exchanges_are_named_as_documented(topology: Topology) -> None:
    assert topology.exchanges[:2] == ("yardstick.main", "yardstick.dlx")
    assert len(set(topology.exchanges)) == 2 + RUNGS


@BOTH
def test_each_domain_has_its_queues_and_no_name_stands_twice(topology: Topology) -> None:
    assert {queue.domain for queue in topology.work} == set(DOMAINS)
    assert len(topology.work) == len(DOMAINS) * (1 if topology.type == "classic" else 2)
    assert len({queue.name for queue in topology.queues}) == len(topology.queues)
    assert all(queue.arguments["x-dead-letter-exchange"] == "yardstick.dlx" for queue in topology.work)


def test_only_classic_queues_ask_for_priorities_which_quorum_queues_refuse() -> None:
    assert all(queue.arguments["x-max-priority"] == 4 for queue in CLASSIC.work)
    assert not any("x-max-priority" in queue.arguments for queue in QUORUM.queues)
    assert [LEVELS[one] for one in PRIORITIES] == [4, 3, 2, 1, 0]


@BOTH
def test_rungs_hand_on_with_a_confirm_and_double_in_length(topology: Topology) -> None:
    assert [queue.arguments["x-message-ttl"] for queue in topology.rungs] == [
        UNIT_MS * 2**rung for rung in range(RUNGS)
    ]
    for queue in topology.rungs:
        assert queue.arguments["x-queue-type"] == "quorum"
        assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"
        # Without this the broker falls back to the other strategy, and says nothing.
        assert queue.arguments["x-overflow"] == "reject-publish"


@BOTH
def test_dead_letters_are_kept_for_a_day_and_ten_thousand(topology: Topology) -> None:
    assert topology.dead.arguments["x-message-ttl"] == 86_400_000
    assert topology.dead.arguments["x-max-length"] == 10_000
    assert any(
        one.source == "yardstick.dlx" and one.target == topology.dead.name for one in topology.bindings
    )


@BOTH
def test_bindings_join_what_is_declared(topology: Topology) -> None:
    queues = {queue.name for queue in topology.queues}
    for binding in topology.bindings:
        assert binding.source in topology.exchanges
        assert binding.target in (queues if binding.to == "queue" else topology.exchanges)
