"""Wrong commands end with 2 and one readable text; own journeys run against any target."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.load.harness import PROJECT, Run, Target

Start = Callable[[str], Target]
Load = Callable[..., Run]
NOWHERE = "http://127.0.0.1:1"


def loadtest(*options: str, cwd: Path = PROJECT) -> tuple[int, str]:
    """Exit code and standard error."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    command = [sys.executable, "-m", "loadtest", *options]
    ended = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--scenario", "dmeo", "--target", NOWHERE], "no scenario 'dmeo'"),
        (["--scenario", "smoke"], "what to load"),
        (["--scenario", "smoke", "--target", "localhost:8000"], "is not a URL"),
        (["--scenario", "smoke", "--target", NOWHERE, "--duration", "0"], "--duration"),
        (["--scenario", "smoke", "--target", NOWHERE, "--users", "0"], "--users"),
        (["--scenario", "smoke", "--target", NOWHERE, "--slo", "absent.yaml"], "no SLO file absent.yaml"),
        (["--scenario", "smoke", "--target", NOWHERE, "--prometheus", "x"], "--prometheus 'x' is not a URL"),
        (["--target", NOWHERE], "--scenario"),
    ],
)
def test_a_wrong_command_is_refused(options: list[str], said: str, tmp_path: Path) -> None:
    code, err = loadtest("run", *options, cwd=tmp_path)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "reports").exists()


def test_a_report_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "report.html").write_text("older")
    code, err = loadtest(
        "run", "--scenario", "smoke", "--target", NOWHERE, "--report-dir", str(tmp_path / "kept")
    )
    assert (code, (tmp_path / "kept" / "report.html").read_text()) == (2, "older")
    assert "exists already" in err


def test_a_report_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "file" / "report")
    code, err = loadtest("run", "--scenario", "smoke", "--target", NOWHERE, "--report-dir", folder)
    assert code == 2
    assert "cannot be made" in err


def test_a_mix_that_the_journeys_do_not_have_is_refused(start_target: Start, load: Load) -> None:
    code, _, err = load(start_target("none").address, mix={"refund": 1}).end()
    assert code == 2
    assert "has no journey refund; it has browse, pay" in err


def test_parameters_that_the_journeys_do_not_know_fail_the_run(start_target: Start, load: Load) -> None:
    run = load(start_target("none").address, parameters={"page_sise": 5})
    code, out, _ = run.end()
    assert code == 99
    assert "page_sise" in out + str(run.result()["checks"])


def test_own_journeys_load_any_target(start_target: Start, load: Load, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from locust import FastHttpUser, task\n\n\n"
        "class Visitor(FastHttpUser):\n"
        "    @task\n"
        "    def look(self):\n"
        "        self.client.get('/seen')\n"
    )
    run = load(
        start_target("none").address,
        journeys="mine.py",
        mix={"look": 1},
        slos=["api-availability"],
        thresholds=[{"route": "GET /seen", "rate_over": 1}],
        ready_path=None,
    )
    code, out, err = run.end()
    assert code == 0, out + err
    assert [check["name"] for check in run.result()["checks"]] == ["api-availability", "rate"]


def test_an_exception_in_a_journey_fails_the_run(start_target: Start, load: Load, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from locust import FastHttpUser, task\n\n\n"
        "class Visitor(FastHttpUser):\n"
        "    @task\n"
        "    def look(self):\n"
        "        self.client.get('/seen')\n"
        "        raise KeyError('cart')\n"
    )
    run = load(start_target("none").address, journeys="mine.py", mix={"look": 1}, slos=["api-availability"])
    code, out, _ = run.end()
    assert code == 99
    assert "journeys on Visitor" in out
    assert "'cart'" in str(run.result()["checks"])
