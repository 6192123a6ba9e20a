from typing import Any

import pytest

from loadtest import gate
from loadtest.samples import Sample
from loadtest.scenario import Abort, Scenario
from loadtest.slo import Slo
from loadtest.verdict import Code, Course, judge

AVAILABILITY = Slo(name="up", objective=0.999, kind="availability")
LATENCY = Slo(name="fast", objective=0.99, kind="latency", threshold_seconds=0.25)
FRESHNESS = Slo(name="fresh", objective=0.99, kind="freshness", threshold_seconds=30)


def scenario(**more: Any) -> Scenario:
    model = {"kind": "closed", "users": 1, "duration_seconds": 100, **more.pop("model", {})}
    content = {"name": "x", "title": "x", "journeys": "x", "mix": {"a": 1}, "model": model, **more}
    return Scenario.model_validate(content)


def http(
    count: int, *, elapsed: float = 0.1, error: str = "", name: str = "/a", start: float = 50
) -> list[Sample]:
    return [Sample(start, elapsed, "GET", name, 500 if error else 200, error, "")] * count


def jobs(count: int, *, elapsed: float = 1.0, error: str = "") -> list[Sample]:
    return [Sample(50.0, elapsed, "JOB", "settle", 0, error, "")] * count


def only(slo: Slo, samples: list[Sample], **more: Any) -> list[gate.Check]:
    return gate.evaluate(scenario(**more), [slo], samples, 0.0, 100.0)


@pytest.mark.parametrize(("failed", "passes"), [(0, True), (1, True), (2, False)])
def test_availability_allows_one_failure_in_a_thousand_and_not_two(failed: int, passes: bool) -> None:
    (check,) = only(AVAILABILITY, http(1000 - failed) + http(failed, error="answered 500, expected 200"))
    assert check.passed is passes
    assert (check.bad, check.total) == (failed, 1000)
    assert check.margin == pytest.approx(1 - failed)


def test_a_failed_share_never_reads_like_the_limit_it_missed() -> None:
    (check,) = only(AVAILABILITY, http(99_899) + http(101, error="no"))
    assert not check.passed
    assert check.measured == "99.89 %"


def test_latency_is_judged_over_all_and_on_each_route() -> None:
    samples = http(990) + http(10, elapsed=0.3, name="/slow")
    checks = {check.route: check.passed for check in only(LATENCY, samples)}
    assert checks == {"all requests": True, "GET /a": True, "GET /slow": False}


def test_a_fast_failure_is_no_fast_answer_and_exactly_the_threshold_is_within_it() -> None:
    everything, _ = only(LATENCY, http(1, elapsed=0.25) + http(50, elapsed=0.001, error="no"))
    assert (everything.total, everything.bad) == (1, 0)


def test_a_job_that_never_was_done_is_not_left_out() -> None:
    (check,) = only(FRESHNESS, jobs(98) + jobs(1, elapsed=31) + jobs(1, error="still pending after 35 s"))
    assert (check.bad, check.total, check.passed) == (2, 100, False)


@pytest.mark.parametrize("slo", [AVAILABILITY, LATENCY, FRESHNESS])
def test_no_traffic_is_not_a_pass(slo: Slo) -> None:
    (check,) = only(slo, [])
    assert not check.passed
    assert "no traffic" in check.note


def test_only_failures_are_no_traffic_to_judge_latency_by() -> None:
    assert not any(check.passed for check in only(LATENCY, http(100, error="no")))


def test_the_warm_up_is_left_out_of_latency_but_its_errors_count() -> None:
    early = http(5, elapsed=9.0, start=1) + http(5, error="no", start=1)
    checks = gate.evaluate(
        scenario(model={"warmup_seconds": 10}), [AVAILABILITY, LATENCY], early + http(100), 0.0, 100.0
    )
    assert [check.passed for check in checks] == [False, True, True]


@pytest.mark.parametrize(
    ("threshold", "passes", "measured"),
    [
        ({"percentile": 95, "under_ms": 101}, True, "100.0 ms"),
        ({"percentile": 95, "under_ms": 100}, False, "100.0 ms"),
        ({"route": "GET /other", "percentile": 95, "under_ms": 100}, False, "nothing"),
        ({"error_share_at_most": 0.1}, True, "10 % failed"),
        ({"error_share_at_most": 0.09}, False, "10 % failed"),
        ({"error_share_at_most": 0}, False, "10 % failed"),
        ({"rate_over": 0.9}, True, "1.0 /s"),
        ({"rate_over": 1.0}, False, "1.0 /s"),
        ({"route": "GET /other", "rate_over": 1}, False, "nothing"),
    ],
)
def test_thresholds_of_the_scenario(threshold: dict[str, Any], passes: bool, measured: str) -> None:
    samples = http(90) + http(10, error="no")
    (check,) = gate.evaluate(scenario(slos=[], thresholds=[threshold]), [], samples, 0.0, 100.0)
    assert (check.passed, check.measured) == (passes, measured)


def test_a_journey_that_raises_fails_the_run() -> None:
    broken = Sample(50, 0, "EXCEPTION", "Customer", 0, "KeyError: 'id'", "")
    *_, last = only(AVAILABILITY, [*http(10), broken])
    assert (last.name, last.passed) == ("journeys", False)
    assert "KeyError" in last.note


def test_hopeless_needs_grace_burn_and_more_bad_than_the_whole_run_may_have() -> None:
    rule = Abort(grace_seconds=10, burn_rate=10, least_bad=10)
    broken = only(AVAILABILITY, http(80) + http(20, error="no"))
    assert gate.hopeless(broken, 9, 100, rule) is None
    assert gate.hopeless(broken, 11, 100, rule) is broken[0]
    # 20 bad among 2,000 in the first hundredth of the run: the rest could still make up for it.
    early = only(AVAILABILITY, http(1980) + http(20, error="no"))
    assert gate.hopeless(early, 10, 1000, rule) is None
    assert gate.hopeless(only(AVAILABILITY, http(5, error="no")), 50, 100, rule) is None
    assert gate.hopeless(only(AVAILABILITY, http(100)), 50, 100, rule) is None


@pytest.mark.parametrize(
    ("course", "failed", "code"),
    [
        (Course(), [], Code.PASSED),
        (Course(), ["fast"], Code.SLO_FAILED),
        (Course(given_up="given up"), [], Code.SLO_FAILED),
        (Course(generator_cpu=0.70, cpu_limit=0.7), [], Code.PASSED),
        (Course(generator_cpu=0.71, cpu_limit=0.7), ["fast"], Code.GENERATOR_SATURATED),
        (Course(interrupted=True, generator_cpu=0.9, cpu_limit=0.7), ["fast"], Code.ABORTED),
        (Course(stack_failed="gone", interrupted=True, generator_failed="x"), [], Code.STACK_FAILED),
        (Course(generator_failed="died"), [], Code.GENERATOR_FAILED),
    ],
)
def test_what_invalidates_a_run_outweighs_what_it_measured(
    course: Course, failed: list[str], code: Code
) -> None:
    assert judge(course, failed, checks=3).code == code


def test_exit_codes_are_the_promised_ones() -> None:
    assert [Code.PASSED, Code.SLO_FAILED, Code.GENERATOR_SATURATED, Code.STACK_FAILED] == [0, 99, 97, 98]
