"""A store on an empty database of the run's Redis, and a Redis of its own that may be stopped."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from compose.native import Stack
from tests.integration.service.redis.harness import Kit, opened


@pytest.fixture
async def kit(redis_database: str, tmp_path: Path) -> AsyncIterator[Kit]:
    async with opened(redis_database, tmp_path) as kit:
        yield kit


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    """A server that only this test has."""
    with Stack(tmp_path / "stack", only=("redis",)) as stack:
        yield stack
