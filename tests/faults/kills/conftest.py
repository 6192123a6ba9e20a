"""The table of all campaigns, at the end of the run."""

import pytest

from tests.faults.kills import report
from tests.faults.kills.campaign import Outcome

OUTCOMES = pytest.StashKey[list[Outcome]]()


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> list[Outcome]:
    """Where campaigns leave their outcome."""
    return request.config.stash.setdefault(OUTCOMES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if found := terminalreporter.config.stash.get(OUTCOMES, []):
        terminalreporter.section("kills under load")
        terminalreporter.write_line("\n".join(report.table(found)))
