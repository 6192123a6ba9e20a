"""Locks on an empty database of the run's Redis."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from compose.native import Stack
from service.infra.locks import Locks
from service.settings import LockSettings
from tests.integration.service.redis.harness import Kit, opened


@pytest.fixture
async def kit(redis_database: str, tmp_path: Path) -> AsyncIterator[Kit]:
    async with opened(redis_database, tmp_path) as kit:
        yield kit


@pytest.fixture
def locks(kit: Kit) -> Locks:
    return Locks(kit.store, LockSettings.model_validate({}), kit.telemetry)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    """A server that only this test has."""
    with Stack(tmp_path / "stack", only=("redis",)) as stack:
        yield stack
