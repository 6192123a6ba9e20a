"""A site of its own for every test, on the servers of the run."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from tests.contract.queues.rabbitmq_broker import amqp_url
from tests.faults.kills.campaign import Engine, environment
from tests.faults.kills.members import ROOT, Nursery
from tests.faults.poison.site import Site, at, working
from tests.ports import free_port

__all__ = ["amqp_url"]
Open = Callable[..., AbstractAsyncContextManager[Site]]


@pytest.fixture(scope="session")
async def nursery() -> AsyncIterator[Nursery]:
    """Where the workers come from."""
    async with Nursery() as found:
        yield found


@pytest.fixture(params=["redis", "rabbitmq", "file"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each engine in turn."""
    found: Engine = request.param
    return found


@pytest.fixture
async def site(
    engine: Engine, servers: dict[str, str], request: pytest.FixtureRequest, nursery: Nursery, tmp_path: Path
) -> AsyncIterator[Open]:
    """Opens the site; takes variables to change and another nursery."""
    endpoints, name = dict(servers), f"poison{uuid.uuid4().hex[:8]}"
    if engine == "rabbitmq":
        endpoints["rabbitmq"] = request.getfixturevalue("amqp_url")
    admin = await asyncpg.connect(endpoints["postgres"])
    await admin.execute(f"CREATE DATABASE {name}")
    endpoints |= {"postgres": at(endpoints["postgres"], name), "redis": at(endpoints["redis"], "7")}

    @asynccontextmanager
    async def opened(other: Nursery | None = None, **changes: object) -> AsyncIterator[Site]:
        variables = environment(
            engine, endpoints, tmp_path, QUEUE_NAME=name, QUEUE_LEASE_SECONDS=1, **changes
        )
        variables["WORKER_PORT"] = str(free_port())
        migration = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "service.db", "upgrade", cwd=ROOT, env=os.environ | variables
        )
        assert await migration.wait() == 0
        async with working(other or nursery, engine, variables, tmp_path) as found:
            yield found

    yield opened
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()
