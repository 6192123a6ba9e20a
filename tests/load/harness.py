"""What the load tests start and ask: a target, and `python -m loadtest` as a process of its own."""

import json
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

PROJECT = Path(__file__).parents[2]
SLO = {
    "slos": [
        {"name": "api-availability", "objective": 0.999, "kind": "availability"},
        # Generous, and below the slow target's pause: no test here hangs on the speed of this machine.
        {"name": "api-latency", "objective": 0.9, "kind": "latency", "threshold_seconds": 0.3},
        {"name": "job-freshness", "objective": 0.99, "kind": "freshness", "threshold_seconds": 30},
    ]
}
SCENARIO: dict[str, Any] = {
    "title": "A few seconds of everything",
    "journeys": "loadtest.scenarios.transactions",
    "mix": {"browse": 2, "pay": 1},
    "model": {"kind": "closed", "users": 4, "duration_seconds": 3},
    "think_seconds": [0.05, 0.1],
    "ready_path": "/health/ready",
    "limits": {"abort": {"grace_seconds": 60}},
}


@dataclass
class Target:
    """A running target; `address` is free and silent once it is stopped."""

    address: str
    process: subprocess.Popen[bytes]

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def seen(self) -> dict[str, Any]:
        seen: dict[str, Any] = httpx.get(f"{self.address}/seen", trust_env=False).json()["data"]
        return seen


@dataclass
class Run:
    """`python -m loadtest run`, under way or ended."""

    process: subprocess.Popen[str]
    folder: Path

    def end(self, within: float = 90) -> tuple[int, str, str]:
        """Exit code, standard output and standard error."""
        out, err = self.process.communicate(timeout=within)
        return self.process.returncode, out, err

    def wait_for_samples(self) -> psutil.Process:
        """Wait until the generator has measured something; its process."""
        for _ in range(400):
            if any(path.stat().st_size > 600 for path in self.folder.glob("samples-*.bin")):
                (generator,) = psutil.Process(self.process.pid).children()
                return generator
            time.sleep(0.05)
        raise AssertionError("no samples")

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def result(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "result.json").read_text())
        return content
