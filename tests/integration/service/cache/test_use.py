"""The decorator and the event bus on a service of two methods."""

import asyncio
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from service.infra.cache import CacheKeyError, cached, invalidate_on
from service.infra.event_bus import Event, EventBus
from tests.integration.service.cache.harness import Process
from tests.integration.service.harness import eventually


class Role(BaseModel):
    name: str


class Roles:
    def __init__(self, one: Process) -> None:
        self.cache = one.cache
        self.calls = 0

    @cached("permissions", key="role:{role_id}", tags=("tenant:{tenant}",))
    async def find(self, role_id: UUID | int, tenant: str = "acme") -> Role | None:
        self.calls += 1
        return Role(name=f"{tenant}/{role_id}") if role_id else None

    @cached("permissions", key="all:{tenant}:{page}", keep=bool)
    async def every(self, tenant: str, page: str) -> list[Role]:
        self.calls += 1
        return [Role(name=tenant)] if tenant else []


async def test_a_decorated_method_is_called_once_for_the_same_arguments(one: Process) -> None:
    roles, role = Roles(one), uuid4()
    found = [await roles.find(role), await roles.find(role, "acme"), await roles.find(role_id=role)]
    assert found == [Role(name=f"acme/{role}")] * 3
    assert roles.calls == 1
    await roles.find(role, tenant="other")
    assert roles.calls == 1, "the key does not name the tenant"
    await one.cache.invalidate_tags("tenant:acme")
    await roles.find(role)
    assert roles.calls == 2
    assert Roles.find.__name__ == "find"


async def test_none_is_cached_as_nothing_there_and_a_condition_is_kept(one: Process) -> None:
    roles = Roles(one)
    assert [await roles.find(0) for _ in range(2)] == [None, None]
    assert roles.calls == 1
    assert [await roles.every("", "1") for _ in range(2)] == [[], []]
    assert roles.calls == 3


async def test_arguments_cannot_reach_into_each_others_place(one: Process) -> None:
    roles = Roles(one)
    assert await roles.every("a:b", "c") == [Role(name="a:b")]
    assert await roles.every("a", "b:c") == [Role(name="a")]
    assert await roles.every("a%3Ab", "c") == [Role(name="a%3Ab")]


async def test_an_argument_without_a_stable_text_is_refused(one: Process) -> None:
    class Bad:
        def __init__(self) -> None:
            self.cache = one.cache

        @cached("permissions", key="{what}")
        async def find(self, what: object) -> str:
            return "x"

        @cached("permissions", key="{missing}")
        async def lost(self) -> str:
            return "x"

    with pytest.raises(CacheKeyError, match="object"):
        await Bad().find(object())
    with pytest.raises(CacheKeyError, match="missing"):
        await Bad().lost()


async def test_an_event_invalidates_by_subject_and_by_tag(one: Process, other: Process) -> None:
    bus = EventBus(one.telemetry)
    region = other.cache.region("permissions", Role)
    invalidate_on(bus, "role.*", region, keys=lambda event: (f"role:{event.subject}",))
    invalidate_on(bus, "tenant.*", region, keys=lambda _: (), tags=lambda event: (f"tenant:{event.subject}",))
    roles, first, second = Roles(one), uuid4(), uuid4()
    for expected, event in ((2, None), (3, ("role.renamed", str(first))), (5, ("tenant.closed", "acme"))):
        if event is not None:
            bus.publish(Event(event[0], {}, subject=event[1]))
            bus.publish(Event(event[0], {}))  # without a subject there is nothing to do

        async def seen(expected: int = expected) -> bool:
            await asyncio.gather(roles.find(first), roles.find(second))
            return roles.calls == expected

        await eventually(seen, within=5)
    await bus.close()
