"""The invariants of tags, under random sequences of what two processes do."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from redis import Redis

from service.infra.cache import Region
from tests.integration.service.cache.harness import Process, process

R = TypeVar("R")
KEYS = st.sampled_from([f"k{n}" for n in range(5)])
TAGS = st.sets(st.sampled_from([f"t{n}" for n in range(4)]))


@dataclass
class Begun:
    """A load that has read its value and has not stored it yet."""

    key: str
    tags: frozenset[str]
    value: int
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[int | None] | None = None


class TagMachine(RuleBasedStateMachine):
    """A source whose values grow with every change, and two caches that may never serve an older one."""

    url = ""

    def __init__(self) -> None:
        super().__init__()
        client = Redis.from_url(self.url)
        client.flushdb()
        client.close()
        self.loop = asyncio.new_event_loop()
        self.contexts = [process(self.url), process(self.url)]
        self.processes: list[Process] = [self.run(context.__aenter__()) for context in self.contexts]
        self.regions: list[Region[int]] = [one.cache.region("users", int) for one in self.processes]
        self.value = 0
        self.oldest: dict[str, int] = {}
        """By key, the least value that may still be served."""
        self.tagged: dict[str, set[str]] = {}
        """By tag, the keys whose entries may have it."""
        self.begun: list[Begun] = []

    def run(self, work: Awaitable[R]) -> R:
        return self.loop.run_until_complete(work)

    def loaded(self, key: str, tags: frozenset[str]) -> None:
        """Nothing valid was there, so that these are the tags of the entry from now on."""
        self.forget(key)
        for tag in tags:
            self.tagged.setdefault(tag, set()).add(key)

    def forget(self, key: str) -> None:
        for keys in self.tagged.values():
            keys.discard(key)

    @rule(at=st.integers(0, 1), key=KEYS, tags=TAGS, late=st.booleans())
    def read(self, at: int, key: str, tags: set[str], late: bool) -> None:
        async def load() -> int:
            self.loaded(key, frozenset(tags))
            return self.value

        if any(load.key == key for load in self.begun):
            return  # it would wait for that one
        found = self.run(self.regions[at].get(key, load, tags=(lambda _: tags) if late else tags))
        assert found is not None
        assert found >= self.oldest.get(key, 0), f"{key} is {found}, at least {self.oldest[key]} is due"

    @rule(at=st.integers(0, 1), key=KEYS, tags=TAGS)
    def begin(self, at: int, key: str, tags: set[str]) -> None:
        begun = Begun(key, frozenset(tags), self.value)
        running = asyncio.Event()

        async def load() -> int:
            begun.value = self.value
            running.set()
            await begun.gate.wait()
            return begun.value

        async def start() -> None:
            begun.task = asyncio.create_task(self.regions[at].get(key, load, tags=tags))
            waiting = asyncio.create_task(running.wait())
            # One of the two comes, however slow the machine is: what follows must not depend on the time.
            done, _ = await asyncio.wait(
                {begun.task, waiting}, timeout=30, return_when=asyncio.FIRST_COMPLETED
            )
            assert done, "neither an entry nor a load"
            waiting.cancel()

        if any(load.key == key for load in self.begun):
            return
        self.run(start())
        if running.is_set():
            self.loaded(key, begun.tags)
            self.begun.append(begun)

    @rule(which=st.integers(0, 3))
    def end(self, which: int) -> None:
        if not self.begun:
            return
        begun = self.begun.pop(which % len(self.begun))
        begun.gate.set()
        assert begun.task is not None
        self.run(begun.task)

    @rule(at=st.integers(0, 1), key=KEYS)
    def change_key(self, at: int, key: str) -> None:
        self.value += 1
        self.run(self.regions[at].invalidate(key))
        self.oldest[key] = self.value
        self.forget(key)

    @rule(at=st.integers(0, 1), tags=st.sets(st.sampled_from([f"t{n}" for n in range(4)]), min_size=1))
    def change_tags(self, at: int, tags: set[str]) -> None:
        self.value += 1
        self.run(self.processes[at].cache.invalidate_tags(*tags))
        for tag in tags:
            for key in self.tagged.pop(tag, ()):
                self.oldest[key] = self.value

    @rule(tag=st.sampled_from([f"t{n}" for n in range(4)]))
    def server_evicts_tag(self, tag: str) -> None:
        self.run(self.processes[0].raw.delete(f"yardstick:cache:t:{tag}"))

    @invariant()
    def every_tag_lives_as_long_as_its_entries(self) -> None:
        async def look() -> None:
            raw = self.processes[0].raw
            for name in await raw.keys("yardstick:cache:e:*"):
                tags = (await raw.hget(name, "t")).decode().split()
                for tag in tags:
                    left = await raw.pttl(f"yardstick:cache:t:{tag.split('=')[0]}")
                    # Gone, or of another version, which the read finds out; never just about to go.
                    assert left == -2 or left > 1000

        self.run(look())

    def teardown(self) -> None:
        for begun in self.begun:
            begun.gate.set()
            assert begun.task is not None
            self.run(begun.task)
        for context in self.contexts:
            self.run(context.__aexit__(None, None, None))
        self.loop.close()


@pytest.fixture
def machine(redis_database: str) -> type[TagMachine]:
    return type("Machine", (TagMachine,), {"url": redis_database})


def test_after_invalidation_no_entry_with_the_tag_is_served(machine: type[TagMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=150, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
