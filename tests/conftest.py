"""Real servers for the tests, private to this run and on free ports."""

import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from compose.events import GOOD, Phase
from compose.native import Stack
from tests.live import Live


def pytest_configure() -> None:
    # A shell's background job ignores Ctrl-C, and so would every program that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@dataclass(frozen=True)
class WholeStack:
    """The stack as it came up."""

    stack: Stack
    missing: dict[str, str]


@pytest.fixture(scope="session")
def whole_stack() -> Iterator[WholeStack]:
    """Every component, one stack for the session; what cannot be had on this machine is left out."""
    with tempfile.TemporaryDirectory(prefix="yardstick-stack-") as folder:
        one = Stack(Path(folder))
        try:
            outcome = one.up()
            bad = {
                name: text for name, (phase, text) in outcome.items() if phase not in {*GOOD, Phase.MISSING}
            }
            assert not bad, f"not ready: {bad}"
            yield WholeStack(
                one, {name: text for name, (phase, text) in outcome.items() if phase is Phase.MISSING}
            )
        finally:
            one.down()


@pytest.fixture
def stack(whole_stack: WholeStack) -> Stack:
    """The runner of the live stack, to break it with."""
    return whole_stack.stack


@pytest.fixture(scope="session")
def live(whole_stack: WholeStack) -> Iterator[Live]:
    """A client of the live stack's APIs."""
    with httpx.Client(timeout=30) as http:
        yield Live(whole_stack.stack.endpoints(), http, whole_stack.missing)
