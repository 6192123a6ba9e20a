"""Processes of the service for one test, and a publisher in another one: the test's own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import pytest

from tests.integration.service.conftest import Configure
from tests.integration.service.live.harness import Process, process

Start = Callable[..., Awaitable[Process]]


@pytest.fixture
async def start(
    configure: Configure, environment: Callable[..., dict[str, str]], tmp_path: Path
) -> AsyncIterator[Start]:
    """Starts a process on this test's servers, with changes."""
    configure()
    async with AsyncExitStack() as stack:

        async def one(module: str = "service.app", **variables: object) -> Process:
            log = tmp_path / f"{module}-{uuid4().hex[:6]}.jsonl"
            return await stack.enter_async_context(process(module, environment(**variables), log))

        yield one


@pytest.fixture
def subject() -> str:
    """The ID of a transaction that is nobody else's."""
    return str(uuid4())
