"""A real target, real runs: `python -m loadtest` as a process, as a person or a pipeline starts it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.load.harness import PROJECT, SCENARIO, SLO, Run, Target
from tests.ports import free_port


@pytest.fixture
def start_target() -> Iterator[Callable[[str], Target]]:
    """Start the contract's small server with one of its faults."""
    started: list[Target] = []

    def start(fault: str = "none") -> Target:
        port = free_port()
        program = Path(__file__).with_name("target_server.py")
        with Path(os.devnull).open("wb") as nowhere:
            process = subprocess.Popen(
                [sys.executable, str(program), str(port), fault], stdout=nowhere, stderr=nowhere
            )
        started.append(Target(f"http://127.0.0.1:{port}", process))
        for _ in range(200):
            try:
                httpx.get(f"{started[-1].address}/seen", trust_env=False)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return started[-1]
        raise AssertionError("the target did not start")

    yield start
    for target in started:
        target.stop()


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Start a run against an address; changes go into the scenario, option lists to the command."""
    runs: list[Run] = []

    def start(address: str, *options: str, slo: dict[str, Any] | None = None, **changes: Any) -> Run:
        (tmp_path / "slo.yaml").write_text(yaml.safe_dump(slo or SLO))
        scenario = tmp_path / "few.yaml"
        scenario.write_text(yaml.safe_dump({**SCENARIO, **changes}))
        folder = tmp_path / "report"
        command = [sys.executable, "-m", "loadtest", "run", "--scenario", str(scenario), "--target", address]
        command += ["--slo", str(tmp_path / "slo.yaml"), "--report-dir", str(folder), *options]
        process = subprocess.Popen(
            command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        runs.append(Run(process, folder))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()
