"""A private Loki with the stack's own configuration and the committed LogQL rules, evaluated every second."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from alerts.rules import LOKI_RULES
from compose.binaries import ProgramUnavailable, locate
from tests.ports import free_port

CONFIG = Path("compose/config/loki/loki.yaml")


@dataclass
class Loki:
    """`push` and `evaluate` take times in seconds since the epoch."""

    url: str
    http: httpx.Client

    def push(self, service: str, lines: Sequence[tuple[float, dict[str, Any] | str]]) -> None:
        """Store lines under the labels that the collector gives them, the body as it is."""
        labels = {
            "service_name": service,
            "service_namespace": "yardstick",
            "deployment_environment_name": "test",
        }
        values = [
            [str(int(at * 1e9)), line if isinstance(line, str) else json.dumps(line)] for at, line in lines
        ]
        body = {"streams": [{"stream": labels, "values": values}]}
        self.http.post(f"{self.url}/loki/api/v1/push", json=body).raise_for_status()

    def evaluate(self, expr: str, at: float) -> dict[str, float]:
        """The value by service of a LogQL alert's expression; what it returns is what would fire."""
        answer = self.http.get(f"{self.url}/loki/api/v1/query", params={"query": expr, "time": int(at * 1e9)})
        assert answer.status_code == 200, answer.text
        return {
            series["metric"]["service_name"]: float(series["value"][1])
            for series in answer.json()["data"]["result"]
        }

    def ruler(self, what: str) -> Any:
        """The answer of the ruler's own API, `rules` or `alerts`."""
        return self.http.get(f"{self.url}/prometheus/api/v1/{what}").raise_for_status().json()["data"]


@pytest.fixture(scope="module")
def loki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loki]:
    try:
        program = locate("loki")
    except ProgramUnavailable as error:
        pytest.skip(f"LogQL rules are not proven: {error}")
    folder = tmp_path_factory.mktemp("loki")
    _copy_rules(folder / "rules" / "fake")
    http_port, grpc_port = free_port(), free_port()
    environment = {
        "LOKI_ADDRESS": "127.0.0.1",
        "LOKI_HTTP_PORT": str(http_port),
        "LOKI_GRPC_PORT": str(grpc_port),
        "LOKI_DATA": str(folder / "data"),
        "LOKI_RULES": str(folder / "rules"),
        "LOKI_ALERTMANAGER_URL": "http://127.0.0.1:9",  # nobody: what fires is read from the ruler itself
        "LOKI_REMOTE_WRITE_URL": "http://127.0.0.1:9",
    }
    log = folder / "loki.log"
    with log.open("wb") as output, httpx.Client(timeout=10) as http:
        process = subprocess.Popen(
            [program.path, f"-config.file={CONFIG}", "-config.expand-env=true"],
            env=os.environ | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            made = Loki(f"http://127.0.0.1:{http_port}", http)
            _wait_until_ready(made, process, log)
            yield made
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _copy_rules(folder: Path) -> None:
    """The rules as committed, but evaluated every second and without a hold: no test waits minutes."""
    folder.mkdir(parents=True)
    for path in LOKI_RULES.glob("*.yaml"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in content["groups"]:
            group["interval"] = "1s"
            for rule in group["rules"]:
                rule["for"] = "0s"
        (folder / path.name).write_text(yaml.safe_dump(content), encoding="utf-8")


def _wait_until_ready(loki: Loki, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            if loki.http.get(f"{loki.url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.2)
    pytest.fail(f"Loki did not become ready:\n{log.read_text()[-3000:]}")
