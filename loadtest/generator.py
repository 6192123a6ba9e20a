"""The generator process: Locust without a screen, in a process of its own, watched from outside."""

import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import psutil

from loadtest.plan import VARIABLE, Plan
from loadtest.scenario import Scenario

LOCUSTFILE = Path(__file__).parent / "locustfile.py"
PROJECT = Path(__file__).parents[1]
LOG = "generator.log"


class Generator:
    """A started generator. It ends with its run time, by `stop`, or with the death of this process."""

    def __init__(self, scenario: Scenario, target: str, plan: Plan, folder: Path) -> None:
        plan_file = folder / "plan.json"
        plan.write(plan_file)
        self.log = folder / LOG
        self.cpu: list[tuple[float, float]] = []  # (epoch seconds, CPU seconds used until then)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command(scenario, target),
                stdin=subprocess.PIPE,  # its other end is the leash: see Recorder
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(plan_file),
                start_new_session=True,  # Ctrl-C reaches this process alone, which then stops it in order
            )
        self._watched = psutil.Process(self._process.pid)

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def measure_cpu(self) -> None:
        """Note how much CPU the process has used; does nothing once it has ended."""
        try:
            times = self._watched.cpu_times()
        except psutil.Error:
            return
        self.cpu.append((time.time(), times.user + times.system))

    def stop(self, patience_seconds: float = 5.0) -> None:
        """End it now: by closing its input, then by SIGTERM, then by SIGKILL."""
        if self._process.stdin:
            self._process.stdin.close()
        for harder in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(patience_seconds)
            except subprocess.TimeoutExpired:
                harder()
        self._process.wait()

    def last_words(self, lines: int = 8) -> str:
        """The end of its log, for a person to read."""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-lines:])


def command(scenario: Scenario, target: str) -> list[str]:
    """The command line of the generator."""
    model = scenario.model
    return [
        sys.executable,
        *("-m", "locust", "--locustfile", str(LOCUSTFILE), "--headless", "--only-summary"),
        *("--host", target, "--users", str(model.users), "--spawn-rate", f"{model.spawn_rate:.6f}"),
        *("--run-time", f"{model.duration_seconds}s"),
        *("--stop-timeout", f"{scenario.limits.drain_seconds:g}"),
        *("--exit-code-on-error", "0"),  # the gate judges, not Locust
    ]


def environment(plan_file: Path) -> dict[str, str]:
    """This process's environment without settings for another Locust, with the plan and the import path."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("LOCUST_")}
    path = os.pathsep.join(part for part in (str(PROJECT), own.get("PYTHONPATH", "")) if part)
    return {**own, VARIABLE: str(plan_file), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


def cpu_share(
    readings: list[tuple[float, float]], start: float, end: float
) -> tuple[float | None, float | None]:
    """Mean and highest use of one core between two times (epoch seconds); None where too little was read."""
    inside = [reading for reading in readings if start <= reading[0] <= end]
    if len(inside) < 2:
        return None, None
    (first, used_first), (last, used_last) = inside[0], inside[-1]
    steps = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(inside) if b[0] > a[0]]
    return (used_last - used_first) / (last - first), max(steps)
