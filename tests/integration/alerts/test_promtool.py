"""The PromQL rules under promtool: linted, and tested over time."""

from pathlib import Path

import pytest

from alerts.verify import TESTS, promtool_faults
from compose.binaries import ProgramUnavailable, locate


@pytest.fixture(scope="module")
def promtool() -> str:
    try:
        return str(locate("promtool").path)
    except ProgramUnavailable as error:
        pytest.skip(f"PromQL rules are not proven: {error}")


def test_promtool_accepts_the_rules_and_their_tests_pass(promtool: str) -> None:
    assert list(promtool_faults(promtool)) == []


def test_a_test_that_expects_something_else_fails(
    promtool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = (TESTS / "components.yaml").read_text().replace("severity: page", "severity: ticket")
    rules = (TESTS.parent / "prometheus" / "components.yaml").resolve()
    (tmp_path / "components.yaml").write_text(wrong.replace("../prometheus/components.yaml", str(rules)))
    monkeypatch.setattr("alerts.verify.TESTS", tmp_path)
    (fault,) = promtool_faults(promtool)
    assert fault.startswith("promtool test rules:")
