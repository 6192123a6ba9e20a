"""What stands in the broker: one table, made from the domains, that runs on RabbitMQ 3.10 and 4.x alike.

A job is published to the topic exchange `main` as `<priority>.<name>`, or, when it is not due, to the ladder.

The ladder delays without a plugin. Rung k is a queue whose messages expire after 2^k units of 32 ms and go
on to the exchange of the rung below. A delay is written in binary into the routing key, one word a bit, and
each exchange looks at its own bit: with a 1 the message waits in the rung, with a 0 it goes past it. Within a
rung all wait equally long, so the first to come is the first due, and nobody stands behind a longer wait, as
they would in one queue with a TTL by message. The number of queues does not grow with the number of different
delays, as it would with an expiring queue for each. Rungs are quorum queues, whatever the others are: only
those hand an expired message on with a confirm, so that a crash in that moment does not lose it.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

from service.infra.queues.domains import DOMAINS
from service.infra.queues.interface import PRIORITIES, Priority
from service.settings.queue import DEAD_LIMIT, DEAD_SECONDS

QueueType: TypeAlias = Literal["classic", "quorum"]
Arguments: TypeAlias = dict[str, str | int]

UNIT_MS = 32
RUNGS = 25
LONGEST_MS = UNIT_MS * (2**RUNGS - 1)
"""12.4 days. What is due later comes out then, and is put back for the rest."""

DELIVERY_LIMIT = 1000

LEVELS: Mapping[Priority, int] = {name: len(PRIORITIES) - 1 - i for i, name in enumerate(PRIORITIES)}
"""The message priority in AMQP: critical is 4, bulk is 0."""

_LANES: Mapping[QueueType, Mapping[str, tuple[Priority, ...]]] = {
    "classic": {"": PRIORITIES},
    "quorum": {".urgent": ("critical", "high"), "": ("normal", "low", "bulk")},
}


class TopologyError(Exception):
    """The broker holds something of ours that is not as the table says. The text says what to do."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A durable queue. `domain` is that of the jobs in a work queue, and empty for the others."""

    name: str
    arguments: Arguments
    domain: str = ""


@dataclass(frozen=True, slots=True)
class Binding:
    """From a topic exchange to a queue, or to another exchange."""

    source: str
    target: str
    key: str
    to: Literal["queue", "exchange"] = "queue"


@dataclass(frozen=True, slots=True)
class Route:
    """Where to publish."""

    exchange: str
    key: str


@dataclass(frozen=True)
class Topology:
    """The table. `prefix` is in front of every name, so that two of them share a broker.

    `quorum` queues know no levels of priority on 3.x and two on 4.x, so that each domain has two of them
    instead, `urgent` for critical and high and one for the rest; within one of them it is first in, first
    out. A `classic` queue has all five levels.
    """

    prefix: str
    type: QueueType = "classic"

    @property
    def main(self) -> str:
        return f"{self.prefix}.main"

    @property
    def dlx(self) -> str:
        return f"{self.prefix}.dlx"

    @cached_property
    def exchanges(self) -> tuple[str, ...]:
        """All of them durable and of type topic."""
        return self.main, self.dlx, *(self._ladder(rung) for rung in range(RUNGS))

    @cached_property
    def work(self) -> tuple[Queue, ...]:
        """The queues that workers consume.

        They have no length and no age limit: a job is not dropped, and a queue that refused one job of a
        batch would have the relay publish all the others again. Backpressure is the API's to apply.
        """
        arguments: Arguments = {"x-queue-type": self.type, "x-dead-letter-exchange": self.dlx}
        if self.type == "classic":
            arguments["x-max-priority"] = LEVELS["critical"]
        else:
            # 4.x would drop a job after 20 returns; so many happen to a job that waits through deployments.
            arguments["x-delivery-limit"] = DELIVERY_LIMIT
        return tuple(
            Queue(f"{self.prefix}.{domain}{lane}", arguments, domain)
            for domain in DOMAINS
            for lane in _LANES[self.type]
        )

    @cached_property
    def rungs(self) -> tuple[Queue, ...]:
        """The queues of the ladder, the shortest wait first."""
        return tuple(
            Queue(
                f"{self.prefix}.delay.{UNIT_MS << rung}ms",
                {
                    "x-queue-type": "quorum",
                    "x-message-ttl": UNIT_MS << rung,
                    "x-dead-letter-exchange": self._below(rung),
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                },
            )
            for rung in range(RUNGS)
        )

    @cached_property
    def dead(self) -> Queue:
        """What the broker itself gave up on, such as a message that was returned too often.

        It is kept as dead letters are by default, and not as the settings have them: the broker cannot change
        the arguments of a queue, so that another number there would keep every job from it.
        """
        return Queue(
            f"{self.prefix}.dead",
            {
                "x-queue-type": self.type,
                "x-message-ttl": DEAD_SECONDS * 1000,
                "x-max-length": DEAD_LIMIT,
                "x-overflow": "drop-head",
            },
        )

    @cached_property
    def queues(self) -> tuple[Queue, ...]:
        return *self.work, *self.rungs, self.dead

    @cached_property
    def bindings(self) -> tuple[Binding, ...]:
        return *self._work_bindings(), *self._ladder_bindings(), Binding(self.dlx, self.dead.name, "#")

    def route(self, priority: Priority, name: str, delay: float) -> Route:
        """Where a job of that name goes that is due in `delay` seconds, never early, at most 32 ms late."""
        key = f"{priority}.{name}"
        units = wait_units(delay)
        if units == 0:
            return Route(self.main, key)
        return Route(self._ladder(units.bit_length() - 1), f"{'.'.join(f'{units:0{RUNGS}b}')}.{key}")

    def _work_bindings(self) -> Iterator[Binding]:
        for domain in DOMAINS:
            for lane, priorities in _LANES[self.type].items():
                for priority in ("*",) if priorities == PRIORITIES else priorities:
                    for bits in ("", "*." * RUNGS):
                        key = f"{bits}{priority}.{domain}.#"
                        yield Binding(self.main, f"{self.prefix}.{domain}{lane}", key)

    def _ladder_bindings(self) -> Iterator[Binding]:
        for rung, queue in enumerate(self.rungs):
            above = "*." * (RUNGS - 1 - rung)
            yield Binding(self._ladder(rung), queue.name, f"{above}1.#")
            yield Binding(self._ladder(rung), self._below(rung), f"{above}0.#", "exchange")

    def _ladder(self, rung: int) -> str:
        return f"{self.prefix}.delay.{rung:02}"

    def _below(self, rung: int) -> str:
        return self._ladder(rung - 1) if rung else self.main


def wait_units(delay: float) -> int:
    """The delay in units of the ladder, rounded up, at most what it holds."""
    return int(min(max(0, math.ceil(delay * 1000 / UNIT_MS)), 2**RUNGS - 1))
