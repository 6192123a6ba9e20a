"""Real servers for the tests, private to this run and on free ports."""

import os
import signal
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from xdist.scheduler import LoadScopeScheduling

from compose.events import GOOD, Phase
from compose.native import Stack
from tests.containers import containers, left_out, reachable
from tests.faults.kills import report
from tests.live import Live


def pytest_configure() -> None:
    # A shell's background job ignores Ctrl-C, and so would every program that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)


LIVE_STACK = ("tests/stack/", "tests/faults/test_backends.py")
ENGINE = tuple(f"tests/integration/compose/test_{name}.py" for name in ("containers", "profiles", "releases"))


class Together(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    """What starts something together is for one process, where several share the tests.

    The live stack is one for all that ask for it, and so is the engine, whose images take long to build; else
    the tests of a file stay together. Each campaign of kills is by itself.
    """

    def _split_scope(self, nodeid: str) -> str:
        for together in (LIVE_STACK, ENGINE):
            if nodeid.startswith(together):
                return together[0]
        return nodeid if nodeid.startswith("tests/faults/kills/") else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first, so that at the end no process waits for another for long."""
    items.sort(key=lambda item: not (item.nodeid.startswith(ENGINE) or item.get_closest_marker("faults")))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of all campaigns, whichever process they ran in; where they stand, only that one looks."""
    ended = [one for how in ("passed", "failed") for one in terminalreporter.getreports(how)]
    rows = [value for one in ended for name, value in one.user_properties if name == report.PROPERTY]
    if rows:
        terminalreporter.section("kills under load")
        terminalreporter.write_line("\n".join(report.table(rows)))


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
    """The stack as it came up.

    Attributes:
        urls: where each component answers, for this machine.
        missing: why a component is not there, by name.
        stack: its runner; None when it runs in containers.
    """

    urls: Mapping[str, str]
    missing: dict[str, str]
    stack: Stack | None


@pytest.fixture(scope="session")
def whole_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeStack]:
    """Every component, one stack for the session; what cannot be had on this machine is left out.

    Plain processes, or containers with `YARDSTICK_MODE=docker`.
    """
    if os.environ.get("YARDSTICK_MODE") == "docker":
        with containers(tmp_path_factory.mktemp("containers")) as running:
            yield WholeStack(reachable(running), left_out(running), None)
        return
    with tempfile.TemporaryDirectory(prefix="yardstick-stack-") as folder:
        one = Stack(Path(folder))
        try:
            outcome = one.up()
            bad = {
                name: text for name, (phase, text) in outcome.items() if phase not in {*GOOD, Phase.MISSING}
            }
            assert not bad, f"not ready: {bad}"
            missing = {name: text for name, (phase, text) in outcome.items() if phase is Phase.MISSING}
            yield WholeStack(one.endpoints(), missing, one)
        finally:
            one.down()


@pytest.fixture
def stack(whole_stack: WholeStack) -> Stack:
    """The runner of the live stack, to break it with."""
    if whole_stack.stack is None:
        pytest.skip("breaks plain processes, and the stack runs in containers")
    return whole_stack.stack


@pytest.fixture(scope="session")
def live(whole_stack: WholeStack) -> Iterator[Live]:
    """A client of the live stack's APIs."""
    with httpx.Client(timeout=30) as http:
        yield Live(dict(whole_stack.urls), http, whole_stack.missing)
