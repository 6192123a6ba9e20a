"""Memory and CPU of processes, each with what it started; and the report that programs read."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from compose import view
from compose.components import COMPONENTS
from compose.docker import Container
from compose.graph import by_name
from compose.state import Known
from compose.status import Status
from compose.usage import Usage, measured

HELD = 60 * 2**20
# A parent that waits, and a child of it that holds memory and turns round and round.
BUSY = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c",
    "import sys; held = b'x' * {HELD}; print('turning', flush=True)\\nwhile True: pass"])
try:
    child.wait()
finally:
    child.kill()
"""
IDLE = "import time; print('waiting', flush=True); time.sleep(600)"


def start(script: str) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def used_before(pid: int, seconds: float) -> None:
    """Wait until what the process started has used so much CPU."""
    (child,) = psutil.Process(pid).children()
    deadline = time.monotonic() + 60
    while child.cpu_times().user < seconds:
        assert time.monotonic() < deadline, "it has used no CPU in a minute"
        time.sleep(0.02)


@pytest.fixture
def busy() -> Iterator[int]:
    process = start(BUSY)
    yield process.pid
    process.send_signal(2)
    process.wait(10)


@pytest.fixture
def idle() -> Iterator[int]:
    process = start(IDLE)
    yield process.pid
    process.kill()
    process.wait()


def test_a_process_counts_with_all_that_it_started(busy: int, idle: int) -> None:
    used_before(busy, 1.5)
    found = measured([busy, idle], 0.5)
    assert found[busy].memory > HELD > found[idle].memory > 0
    assert found[busy].cpu > 5 > found[idle].cpu, "of a core, on a machine that is shared"
    assert found[busy].cpu < 200, "what it used before the watch began does not count"


def test_what_is_gone_takes_nothing() -> None:
    process = start("print('here', flush=True)")
    process.wait(10)
    assert measured([process.pid], 0.0) == {process.pid: Usage(0, 0.0)}


def test_the_report_for_programs_has_a_row_for_each_component_and_a_total() -> None:
    rows = [
        Status(
            by_name(COMPONENTS)[name], condition, True, pid, {"http": 8000}, Known(version="3.11.7"),
            memory, 12.0, cpu,
        )
        for name, condition, pid, memory, cpu in (
            ("api", "ready", 7, 1000, 12.34),
            ("worker", "ready", 8, 500, 1.0),
            ("scheduler", "died", None, 0, 0.0),
        )
    ]  # fmt: skip
    found = json.loads(json.dumps(view.report(rows, {"api": "http://127.0.0.1:8000"})))
    assert found["total"] == {"memoryBytes": 1500, "cpuPercent": 13.3}
    assert found["mode"] == "native"
    assert found["components"][0] == {
        "name": "api", "state": "ready", "wanted": True, "good": True, "pid": 7, "ports": {"http": 8000},
        "url": "http://127.0.0.1:8000", "version": "3.11.7", "from": "", "missing": [], "uptimeSeconds": 12.0,
        "memoryBytes": 1000, "cpuPercent": 12.3,
    }  # fmt: skip
    assert (found["components"][2]["good"], found["components"][2]["ports"]) == (False, {})


def test_the_report_of_containers_has_dockers_figures_as_numbers() -> None:
    rows = [
        Container("edge", "x-edge-1", "healthy", "nginx:1", "1.5GiB / 2GiB", "12.50%"),
        Container("api", "x-api-1", "healthy", "yardstick:1", "512KiB / 1MiB", "0.25%"),
        Container("migrate", "x-migrate-1", "done", "yardstick:1"),
        Container("loki", "x-loki-1", "restarting", "loki:1", "-- / --", "--"),
    ]
    found = json.loads(json.dumps(view.container_report(rows, {"api": "http://127.0.0.1:8000"})))
    assert found["total"] == {"memoryBytes": 1536 * 2**20 + 512 * 2**10, "cpuPercent": 12.8}
    assert [row["url"] for row in found["components"]] == ["http://127.0.0.1:8000", "", "", ""]
    assert [row["good"] for row in found["components"]] == [True, True, True, False]
    assert found["components"][0]["memoryBytes"] == 1536 * 2**20
    assert found["components"][3]["cpuPercent"] == 0.0
