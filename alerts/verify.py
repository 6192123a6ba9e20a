"""Prove the alerts as far as this machine can: `python -m alerts.verify`; exit code 1 on a fault.

The generated rules are current, every alert has its labels, links and runbook, and promtool accepts the rules
and passes their tests. What could not be checked is named. LogQL has no offline checker: its rules are proven
against a real Loki in tests/integration/alerts.
"""

import subprocess
import sys
from collections.abc import Iterator

from alerts.build import build
from alerts.rules import LOKI_RULES, PROMETHEUS_RULES, ROOT, alert_faults, read_rules
from alerts.slo import SloFileError
from compose.binaries import ProgramUnavailable, locate

TESTS = ROOT / "tests"
LINT = ("check", "rules", "--lint=all", "--lint-fatal")


def faults() -> Iterator[str]:
    """What is wrong with the rule files as they stand, promtool aside."""
    try:
        stale = build(check=True)
    except SloFileError as error:
        stale = str(error)
    if stale:
        yield stale
    yield from alert_faults(read_rules(PROMETHEUS_RULES, LOKI_RULES))


def promtool_faults(promtool: str) -> Iterator[str]:
    """What promtool says against the Prometheus rules and their tests."""
    rules = sorted(map(str, PROMETHEUS_RULES.glob("*.yaml")))
    tests = sorted(map(str, TESTS.glob("*.yaml")))
    for arguments in ((*LINT, *rules), ("test", "rules", "--diff", *tests)):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            yield f"promtool {' '.join(arguments[:2])}:\n{done.stdout}{done.stderr}"


def main() -> int:
    """Exit code 0 when nothing is wrong, 1 otherwise."""
    found = list(faults())
    try:
        found += promtool_faults(str(locate("promtool").path))
    except ProgramUnavailable as error:
        print(f"not checked: PromQL rules and their tests: {error}")
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
