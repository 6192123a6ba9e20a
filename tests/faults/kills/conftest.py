"""The table of all campaigns, at the end of the run."""

import pytest

from tests.faults.kills import report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    ended = [one for how in ("passed", "failed") for one in terminalreporter.getreports(how)]
    rows = [value for one in ended for name, value in one.user_properties if name == report.PROPERTY]
    if rows:
        terminalreporter.section("kills under load")
        terminalreporter.write_line("\n".join(report.table(rows)))
