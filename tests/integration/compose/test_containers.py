"""The compose stack on a real engine: healthy, apart where it should be, spread and scraped when scaled.

Runs where an engine answers and the images are there (or `YARDSTICK_COMPOSE` names a command that has them).
The stack is one of its own, beside any other of this machine, and is removed with its volumes.
"""

import json
from collections.abc import Iterator

import httpx
import pytest

from compose import secret, view
from compose.components import COMPONENTS
from compose.discovery import SCALED
from compose.docker import Containers
from compose.effective import by_yaml
from tests.containers import containers, create, docker, eventually, named, settled, targets

PROBE = """
import socket, sys
port, *hosts = sys.argv[1:]
for host in hosts:
    try:
        socket.create_connection((host, int(port)), 1)
        print(host)
    except OSError:
        pass
"""
SERVICE = by_yaml()["services"]["api"]["image"]

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    with containers(tmp_path_factory.mktemp("containers"), RATE_LIMIT_DEFAULT="1000000/hour") as one:
        yield one


def test_everything_is_well(stack: Containers) -> None:
    found = stack.status()
    assert [f"{one.name}: {one.state}" for one in found if not one.good] == []
    there = {one.service for one in found}
    wanted = {one.name for one in COMPONENTS if one.belongs({})}
    assert {"edge", "prepare", *wanted} - there <= {"grafana"}


def test_prometheus_scrapes_all_that_the_table_names(stack: Containers) -> None:
    running = {one.service for one in stack.status()}
    jobs = {one.metrics.job for one in COMPONENTS if one.metrics and one.name in running}
    assert eventually(lambda: {job for job, _, health in targets(stack) if health == "up"} == jobs), targets(
        stack
    )


def test_a_transaction_goes_all_the_way(stack: Containers) -> None:
    api = stack.endpoints()["api"]
    made = create(api, "containers")
    assert eventually(lambda: settled(api, made))


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "//metrics",
        "/%6detrics",
        "/v1/../metrics",
        "/v1/cache/statistics",
        "/v1//cache/x",
        "/admin",
    ],
)
def test_the_edge_does_not_pass_on_what_is_not_for_the_outside(stack: Containers, path: str) -> None:
    port = stack.endpoints()["api"].rpartition(":")[2]
    asked = docker(
        "run", "--rm", "--network", "host", "--entrypoint", "python", SERVICE, "-c",
        f"import http.client as h; c = h.HTTPConnection('127.0.0.1', {port}); c.request('GET', {path!r}); "
        "r = c.getresponse(); print(r.status, r.read().decode())",
    )  # fmt: skip
    assert asked.stdout.startswith("404 "), asked
    assert "There is nothing here" in asked.stdout


@pytest.mark.parametrize(
    ("inside", "host", "port", "reached"),
    [
        ("edge", "api", 8000, True),
        ("edge", "postgres", 5432, False),
        ("edge", "redis", 6379, False),
        ("edge", "prometheus", 9090, False),
        ("edge", "worker", 8001, False),
        ("api", "postgres", 5432, True),
        ("prometheus", "postgres", 5432, False),
        ("otelcol", "redis", 6379, False),
        ("postgres", "api", 8000, True),
        ("postgres", "prometheus", 9090, False),
    ],
)
def test_who_reaches_whom_from_inside(
    stack: Containers, inside: str, host: str, port: int, reached: bool
) -> None:
    """By name, and for who must not be reached by each of its addresses too."""
    network = f"container:{named(stack, inside).name}"
    shown = docker("inspect", named(stack, host).name, "--format", "{{json .NetworkSettings.Networks}}")
    addresses = [one["IPAddress"] for one in json.loads(shown.stdout).values()]
    assert all(addresses)
    hosts = [host, *([] if reached else addresses)]
    run = ("run", "--rm", "--network", network, "--entrypoint", "python", SERVICE, "-c", PROBE)
    tried = docker(*run, str(port), *hosts)
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout.split() == (hosts if reached else [])


def test_nothing_secret_can_be_inspected(stack: Containers) -> None:
    values = secret.values(stack.paths.secrets).values()
    shown = docker("inspect", *(one.name for one in stack.status())).stdout
    shown += docker("history", "--no-trunc", SERVICE).stdout
    assert "DATABASE_PASSWORD_FILE" in shown
    assert not [value for value in values if value in shown]
    for one in stack.status():
        if one.state == "healthy":
            logs = docker("logs", one.name)
            assert not [value for value in values if value in logs.stdout + logs.stderr], one.name


def test_the_service_has_no_rights_and_cannot_write(stack: Containers) -> None:
    script = (
        "import os, re; s = open('/proc/1/status').read(); print(os.getuid(), "
        "*re.findall(r'(?:CapEff|CapBnd|NoNewPrivs):\\s*(\\w+)', s)); open('/yardstick/x', 'w')"
    )
    tried = docker("exec", named(stack, "api").name, "python", "-c", script)
    assert tried.stdout.split() == ["10001", "0" * 16, "0" * 16, "1"]
    assert "Read-only file system" in tried.stderr


def test_the_image_is_one_layer_on_its_base_and_small(stack: Containers) -> None:
    form = "{{.Size}} {{.CreatedBy}}"
    layers = docker("history", SERVICE, "--human=false", "--no-trunc", "--format", form).stdout.splitlines()
    (own,) = [line for line in layers if "COPY /out" in line]
    # 250 MB, less the 126.25 MB that Docker's record of the official images names for the base.
    assert 50e6 < int(own.split()[0]) < 123.75e6
    top = layers[: layers.index(own)]
    assert {line.split()[0] for line in top} <= {"0"}, top


def test_sigterm_drains(stack: Containers) -> None:
    name = named(stack, "worker").name
    docker("stop", name)
    shown = docker("inspect", name, "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}")
    assert shown.stdout.split() == ["0", "false"]
    docker("start", name)
    assert eventually(lambda: named(stack, "worker").state == "healthy")


def test_more_instances_share_the_load_and_are_scraped_one_by_one(stack: Containers) -> None:
    assert stack.up([f"--scale={name}=3" for name in SCALED]) == 0

    def scraped() -> bool:
        up = [job for job, _, health in targets(stack) if health == "up"]
        return all(up.count(f"yardstick-{name}") == 3 for name in SCALED)

    assert eventually(scraped), targets(stack)
    api = stack.endpoints()["api"]
    for _ in range(60):
        assert httpx.get(f"{api}/v1/transactions", timeout=10).status_code == 200
    log = docker("logs", "--tail", "60", named(stack, "edge").name).stdout.splitlines()
    answered = {json.loads(line)["upstream"] for line in log if '"event":"edge.request"' in line}
    assert len(answered) == 3


def test_memory_at_rest_is_under_three_gigabytes(stack: Containers) -> None:
    """With three instances of each of the service's, even."""
    used = [view.mebibytes(one.memory) for one in stack.status()]
    assert len([one for one in used if one]) >= 10
    assert sum(used) < 3 * 1024
