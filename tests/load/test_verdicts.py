"""Every exit code for a reason that is real: a target that is slow, wrong, dead; a generator at its limit."""

from collections.abc import Callable
from typing import Any

import psutil
import pytest

from tests.load.harness import Run, Target
from tests.ports import free_port

Start = Callable[[str], Target]
Load = Callable[..., Run]


def missed(result: dict[str, Any]) -> set[str]:
    return {check["name"] for check in result["checks"] if not check["passed"]}


def test_a_healthy_target_passes_and_everything_is_recorded(start_target: Start, load: Load) -> None:
    target = start_target("none")
    run = load(target.address)
    code, out, err = run.end()
    assert code == 0, out + err
    assert "PASSED" in out
    assert "report.html" in out
    assert "req/s" in err  # progress, one line at a time without a terminal
    assert sorted(path.name for path in run.folder.iterdir() if path.suffix != ".bin") == [
        "generator.log",
        "junit.xml",
        "plan.json",
        "report.html",
        "result.json",
        "summary.md",
    ]
    result = run.result()
    routes = {route["route"]: route for route in result["routes"]}
    assert set(routes) == {
        "GET /v1/transactions",
        "POST /v1/transactions",
        "GET /v1/transactions/{id}",
        "settle transaction",
    }
    assert routes["settle transaction"]["count"] == routes["POST /v1/transactions"]["count"] > 0
    assert routes["settle transaction"]["percentiles_ms"]["50"] >= 150  # what the target takes to settle
    assert all(len(slow["trace_id"]) == 32 for slow in result["slowest"])
    assert {slow["route"] for slow in result["slowest"]} == set(routes)
    assert result["generator"]["cpu_mean"] > 0
    seen = target.seen()
    assert "traceparent" not in seen["headers"]  # the server decides what it samples
    assert len(seen["references"]) == routes["POST /v1/transactions"]["count"]
    assert all(reference.startswith(f"loadtest-{result['run_id']}-") for reference in seen["references"])


@pytest.mark.parametrize(
    ("fault", "limits", "error"),
    [
        ("slow", {"api-latency"}, ""),
        ("errors", {"api-availability"}, "answered 500 internal, expected 20"),
        ("wrong-body", {"api-availability", "api-latency", "job-freshness"}, "not a JSON object"),
        ("wrong-id", {"api-availability", "api-latency"}, "the answer's id is not the one that was sent"),
        ("never-settles", {"job-freshness"}, "still pending after 1 s"),
    ],
)
def test_a_target_that_misses_a_limit_fails(
    start_target: Start, load: Load, fault: str, limits: set[str], error: str
) -> None:
    run = load(start_target(fault).address, parameters={"settle_deadline_seconds": 1})
    code, out, err = run.end()
    assert code == 99, out + err
    assert "FAILED" in out
    assert limits <= missed(run.result()) <= {*limits, "job-freshness"}
    assert error in str(run.result()["errors"])


def test_a_hopeless_run_is_given_up_early(start_target: Start, load: Load) -> None:
    model = {"kind": "closed", "users": 4, "duration_seconds": 60}
    limits = {"abort": {"grace_seconds": 2, "burn_rate": 10, "least_bad": 5}}
    run = load(start_target("wrong-body").address, model=model, limits=limits)
    code, out, _ = run.end(within=45)
    assert code == 99
    assert "given up after" in out
    assert run.result()["load_seconds"] < 45


def test_journeys_that_meet_no_one_are_no_pass(start_target: Start, load: Load) -> None:
    run = load(start_target("no-items").address, mix={"browse": 1})
    code, _, _ = run.end()
    assert code == 99
    assert missed(run.result()) == {"job-freshness"}  # nothing was paid, so nothing was shown to be fresh


def test_nothing_at_the_address_is_a_failed_stack(load: Load) -> None:
    run = load(f"http://127.0.0.1:{free_port()}")
    code, out, _ = run.end()
    assert code == 98
    assert "STACK FAILED" in out
    assert "nothing answers at" in out
    assert (run.folder / "junit.xml").is_file()


def test_a_target_that_is_not_ready_is_a_failed_stack(start_target: Start, load: Load) -> None:
    code, out, _ = load(start_target("unready").address).end()
    assert code == 98
    assert "/health/ready answered 503" in out


def test_a_target_that_dies_in_the_middle_is_a_failed_stack(start_target: Start, load: Load) -> None:
    target = start_target("none")
    run = load(
        target.address,
        model={"kind": "closed", "users": 4, "duration_seconds": 60},
        limits={"unreachable_seconds": 1},
    )
    run.wait_for_samples()
    target.stop()
    code, out, _ = run.end(within=45)
    assert code == 98
    assert "nothing answers at" in out
    assert run.result()["requests"] > 0
    assert run.result()["load_seconds"] < 45


def test_a_target_that_dies_just_before_the_end_is_noticed_too(start_target: Start, load: Load) -> None:
    target = start_target("none")
    run = load(target.address, limits={"unreachable_seconds": 60}, parameters={"settle_deadline_seconds": 1})
    run.wait_for_samples()
    target.stop()
    code, out, _ = run.end()
    assert code == 98
    assert "nothing answers at" in out


def test_a_saturated_generator_makes_the_run_invalid(start_target: Start, load: Load) -> None:
    run = load(start_target("none").address, limits={"generator_cpu": 0.001})
    code, out, _ = run.end()
    assert code == 97
    assert "GENERATOR SATURATED" in out
    assert run.result()["generator"]["cpu_mean"] > 0.001


def test_an_interrupted_run_stops_its_generator_and_still_reports(start_target: Start, load: Load) -> None:
    run = load(start_target("none").address, model={"kind": "closed", "users": 4, "duration_seconds": 60})
    generator = run.wait_for_samples()
    run.interrupt()
    code, out, _ = run.end(within=30)
    assert code == 130
    assert "ABORTED" in out
    assert run.result()["requests"] > 0
    assert "aborted" in (run.folder / "report.html").read_text()
    assert not generator.is_running()


def test_a_killed_run_leaves_no_generator_behind(start_target: Start, load: Load) -> None:
    run = load(start_target("none").address, model={"kind": "closed", "users": 4, "duration_seconds": 60})
    generator = run.wait_for_samples()
    run.process.kill()
    run.process.communicate()
    gone, alive = psutil.wait_procs([generator], timeout=20)
    assert gone
    assert not alive


def test_a_generator_that_is_killed_is_its_own_fault_and_not_the_targets(
    start_target: Start, load: Load
) -> None:
    run = load(start_target("none").address, model={"kind": "closed", "users": 4, "duration_seconds": 60})
    run.wait_for_samples().kill()
    code, out, _ = run.end(within=30)
    assert code == 1
    assert "GENERATOR FAILED" in out
