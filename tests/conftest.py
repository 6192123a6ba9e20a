"""Real servers for the tests, private to this run and on free ports."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.native import Stack


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, str]]:
    """Addresses of a PostgreSQL and a Redis that live as long as the test run, by name."""
    with (
        tempfile.TemporaryDirectory(prefix="yardstick-tests-") as folder,
        Stack(Path(folder), only=("postgres", "redis")) as stack,
    ):
        yield stack.endpoints()


@pytest.fixture(scope="session")
def postgres_url(servers: dict[str, str]) -> str:
    """`postgresql://user:password@host:port/database` of the private server."""
    return servers["postgres"]


@pytest.fixture(scope="session")
def redis_url(servers: dict[str, str]) -> str:
    """`redis://:password@host:port/0` of the private server."""
    return servers["redis"]
