"""The LogQL rules on a real Loki: they have no unit tester, so lines are pushed and the rule is evaluated."""

import time

import pytest

from alerts.rules import LOKI_RULES, read_rules
from tests.integration.alerts.conftest import Loki
from tests.live import eventually

RULES = {rule.name: rule for rule in read_rules(LOKI_RULES)}
ERROR_RATE = RULES["YardstickErrorLogRate"].expr


def lines(
    level: str, count: int, *, until: float, over: float
) -> list[tuple[float, dict[str, object] | str]]:
    """`count` lines of one level, evenly spread over the `over` seconds before `until`."""
    step = over / count
    return [
        (
            until - over + step * (n + 1),
            {"level": level, "event": "job.failed", "logger": "test", "attempt": n},
        )
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def then() -> float:
    """A time in the past, with room after it for the alert to reset."""
    return time.time() - 30 * 60


@pytest.mark.parametrize("level", ["error", "critical"])
def test_a_burst_of_error_lines_fires_and_resets(loki: Loki, then: float, level: str) -> None:
    service = f"burst-of-{level}"
    loki.push(service, lines(level, 60, until=then, over=120))
    assert loki.evaluate(ERROR_RATE, then - 121).get(service) is None
    assert loki.evaluate(ERROR_RATE, then + 1)[service] == pytest.approx(60 / 300)
    assert loki.evaluate(ERROR_RATE, then + 302).get(service) is None


def test_errors_at_the_limit_stay_quiet_and_one_more_fires(loki: Loki, then: float) -> None:
    loki.push("at-the-limit", lines("error", 30, until=then, over=200))
    loki.push("over-the-limit", lines("error", 31, until=then, over=200))
    found = loki.evaluate(ERROR_RATE, then + 1)
    assert "at-the-limit" not in found
    assert "over-the-limit" in found


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_other_levels_stay_quiet(loki: Loki, then: float, level: str) -> None:
    service = f"only-{level}"
    loki.push(service, lines(level, 500, until=then, over=120))
    assert service not in loki.evaluate(ERROR_RATE, then + 1)


def test_lines_that_are_no_json_neither_count_nor_break_the_rule(loki: Loki, then: float) -> None:
    loki.push("plain", [(then - n, f"Traceback: level=error number {n}") for n in range(100)])
    loki.push("plain-and-errors", [(then - n, "not {json") for n in range(100)])
    loki.push("plain-and-errors", lines("error", 60, until=then, over=120))
    found = loki.evaluate(ERROR_RATE, then + 1)
    assert "plain" not in found
    assert found["plain-and-errors"] == pytest.approx(60 / 300)


def test_the_word_error_in_an_info_line_does_not_count(loki: Loki, then: float) -> None:
    info = [
        (then - n, {"level": "info", "event": "no error", "detail": '"level":"error"'}) for n in range(100)
    ]
    loki.push("speaks-of-errors", [*info])
    assert "speaks-of-errors" not in loki.evaluate(ERROR_RATE, then + 1)


def test_the_ruler_lists_every_committed_rule(loki: Loki) -> None:
    def healthy() -> set[str]:
        groups = loki.ruler("rules")["groups"]
        return {rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "ok"}

    eventually(
        lambda: set(RULES) <= healthy(), what="the committed rules in the ruler, evaluated without error"
    )


def test_the_ruler_fires_for_lines_that_come_in_now(loki: Loki) -> None:
    def firing() -> dict[str, dict[str, str]]:
        return {
            alert["labels"]["service_name"]: alert["labels"] | alert["annotations"]
            for alert in loki.ruler("alerts")["alerts"]
            if alert["state"] == "firing" and alert["labels"]["alertname"] == "YardstickErrorLogRate"
        }

    now = time.time()
    loki.push("fails-now", lines("error", 60, until=now, over=60))
    loki.push("works-now", lines("info", 60, until=now, over=60))
    alert = eventually(lambda: firing().get("fails-now"), what="YardstickErrorLogRate firing in the ruler")
    assert alert is not None
    assert alert["severity"] == "ticket"
    assert alert["description"].startswith("fails-now logs 0.2")
    assert "works-now" not in firing()
