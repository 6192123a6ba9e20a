"""The request context: bound for a request, changed in a block, read from a job's metadata."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from observability import RequestContext, bind, bound, current
from observability.context import current_context, from_mapping


@pytest.fixture(autouse=True)
async def no_context() -> AsyncIterator[None]:
    token = current_context.set(None)
    yield
    current_context.reset(token)


async def test_outside_of_a_request_it_is_empty_and_bound_to_nothing() -> None:
    current().user_id = "u"
    assert current() == RequestContext()


async def test_bind_fills_in_and_keeps_the_rest() -> None:
    bind(user_id="u", role="admin")
    bind(role="clerk")
    assert (current().user_id, current().role) == ("u", "clerk")


async def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="no field colour"):
        bind(colour="red")
    with pytest.raises(TypeError, match="no field route"), bound(route="x"):
        pass
    assert current() == RequestContext()


async def test_a_block_has_a_copy() -> None:
    bind(user_id="u")
    with bound(action="import") as inside:
        inside.tenant = "t"
        assert (current().user_id, current().action) == ("u", "import")
    assert (current().action, current().tenant, current().user_id) == ("", "", "u")


async def test_a_task_that_binds_outside_of_a_request_keeps_it_to_itself() -> None:
    async def task(name: str) -> str:
        bind(user_id=name)
        await asyncio.sleep(0)
        return current().user_id

    assert tuple(await asyncio.gather(task("a"), task("b"))) == ("a", "b")
    assert current().user_id == ""


def test_metadata_in_either_spelling() -> None:
    assert from_mapping({"requestId": "r", "correlationId": "c", "userAgent": "x"}) == RequestContext(
        request_id="r", user_agent="x"
    )
    assert from_mapping({"correlationId": "c", "requestId": "r"}).request_id == "r"
    assert from_mapping({"correlationId": "c"}).request_id == "c"
    assert from_mapping(
        {"user_id": 7, "role": None, "tenant": "", "route": "x", "other": "y"}
    ) == RequestContext(user_id="7")
