"""Caches on this test's empty Redis database."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.service.cache.harness import Process, process


@pytest.fixture
async def one(redis_database: str) -> AsyncIterator[Process]:
    """One process's cache."""
    async with process(redis_database) as found:
        yield found


@pytest.fixture
async def other(redis_database: str) -> AsyncIterator[Process]:
    """That of another process on the same Redis."""
    async with process(redis_database) as found:
        yield found
