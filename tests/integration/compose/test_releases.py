"""A release on a real engine, with jobs over RabbitMQ: rolled under load, upgraded; Grafana's state saved."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from compose import rolling
from compose.backup.containers import InContainers
from compose.components import COMPONENTS
from compose.docker import Containers
from compose.model import StackError
from tests.containers import Load, containers, create, docker, eventually, named, settled, targets

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    folder = tmp_path_factory.mktemp("releases")
    with containers(folder, QUEUE_ENGINE="rabbitmq", YARDSTICK_VERSION="0.1.0") as one:
        yield one


def images(stack: Containers, service: str) -> set[str]:
    """The versions that the containers of a service say they are."""
    label = '{{index .Config.Labels "org.opencontainers.image.version"}}'
    return set(docker("inspect", "--format", label, *stack.ids(service)).stdout.split())


def inside(stack: Containers, service: str, *command: str) -> str:
    return docker("exec", named(stack, service).name, *command).stdout


def test_jobs_go_through_rabbitmq(stack: Containers) -> None:
    api = stack.endpoints()["api"]
    made = create(api, "broker")
    assert eventually(lambda: settled(api, made))
    queues = inside(stack, "rabbitmq", "rabbitmqctl", "-q", "list_queues", "--formatter", "json", "name")
    assert any("yardstick" in one["name"] for one in json.loads(queues)), queues


def test_rabbitmq_is_scraped_and_there_is_no_default_user(stack: Containers) -> None:
    wanted = {one.metrics.job for one in COMPONENTS if one.metrics} - {"grafana"}
    assert eventually(lambda: wanted <= {job for job, _, health in targets(stack) if health == "up"})
    users = json.loads(inside(stack, "rabbitmq", "rabbitmqctl", "-q", "list_users", "--formatter", "json"))
    assert [one["user"] for one in users] == ["yardstick"]
    tried = docker(
        "exec", named(stack, "rabbitmq").name, "rabbitmqctl", "authenticate_user", "guest", "guest"
    )
    assert tried.returncode != 0


def test_a_roll_under_load_fails_no_request(stack: Containers, monkeypatch: pytest.MonkeyPatch) -> None:
    assert stack.up(["--scale=api=2"]) == 0
    before = set(stack.ids("api"))
    assert len(before) == 2
    monkeypatch.setenv("YARDSTICK_VERSION", "0.1.1")
    api = stack.endpoints()["api"]
    with Load(api) as load:
        assert eventually(lambda: load.outcomes["POST 201"] > 50)
        assert rolling.roll(stack) == 2
        served = load.outcomes.total()
        assert eventually(lambda: load.outcomes.total() > served + 50)
    assert load.failed == {}, load.outcomes
    assert not before & set(stack.ids("api"))
    assert (len(stack.ids("api")), images(stack, "api")) == (2, {"0.1.1"})
    assert images(stack, "worker") == {"0.1.0"}
    assert eventually(lambda: settled(api, load.created[-1]))
    assert all(settled(api, one) for one in load.created[:: max(1, len(load.created) // 50)])


def test_an_instance_that_does_not_become_healthy_leaves_the_old_ones(
    stack: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(stack.ids("api"))
    monkeypatch.setenv("RATE_LIMIT_DEFAULT", "not a rate")
    with pytest.raises(StackError, match="did not become healthy"):
        rolling.roll(stack)
    assert set(stack.ids("api")) == before
    assert httpx.get(stack.endpoints()["api"] + "/health/ready", timeout=10).status_code == 200


def test_an_upgrade_keeps_what_was_stored(stack: Containers, monkeypatch: pytest.MonkeyPatch) -> None:
    api = stack.endpoints()["api"]
    body = {"amount": "7.00", "currency": "EUR", "reference": "before the upgrade"}
    made = httpx.post(f"{api}/v1/transactions", json=body, timeout=10).json()["data"]
    assert eventually(lambda: settled(api, made["id"]))
    measured = time.time()
    kept = {name: stack.ids(name) for name in ("postgres", "redis", "rabbitmq", "prometheus")}
    monkeypatch.setenv("YARDSTICK_VERSION", "0.2.0")
    assert stack.up() == 0
    for service in ("api", "worker", "scheduler"):
        assert images(stack, service) == {"0.2.0"}
    assert {name: stack.ids(name) for name in kept} == kept, "they are not of the release"
    after = httpx.get(f"{api}/v1/transactions/{made['id']}", timeout=10).json()["data"]
    assert (after["amount"], after["createdAt"], after["status"]) == ("7.00", made["createdAt"], "settled")
    again = create(api, "after the upgrade")
    assert eventually(lambda: settled(api, again))
    # What was measured before is there too.
    query = {"query": 'up{job="yardstick-api"}', "time": str(measured)}
    found = httpx.get(stack.endpoints()["prometheus"] + "/api/v1/query", params=query, timeout=10).json()
    assert found["data"]["result"]


def test_another_engine_takes_the_broker_away(stack: Containers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_ENGINE", "redis")
    monkeypatch.setenv("YARDSTICK_VERSION", "0.2.0")
    assert stack.up() == 0
    assert stack.ids("rabbitmq") == []
    assert eventually(lambda: "rabbitmq" not in {job for job, _, _ in targets(stack)})
    api = stack.endpoints()["api"]
    made = create(api, "redis again")
    assert eventually(lambda: settled(api, made))


def test_grafanas_state_is_copied_and_put_back(stack: Containers, tmp_path: Path) -> None:
    (image,) = stack.docker("inspect", "--format", "{{.Image}}", stack.ids("api")[0])
    sql = "import sqlite3, sys; one = sqlite3.connect('/state/grafana.db'); one.executescript(sys.argv[1])"

    def inside_grafana(script: str) -> None:
        volume = f"{stack.project}_grafana-data:/state"
        user = ["--user", "472:0", "--network", "none", "--volume", volume, "--entrypoint", "python"]
        stack.docker("run", "--rm", *user, image, "-c", sql, script)

    def saved(name: str) -> list[str]:
        place.save_grafana(tmp_path / name)
        with closing(sqlite3.connect(tmp_path / name)) as one:
            return [row[0] for row in one.execute("SELECT title FROM dashboard")]

    place = InContainers(stack)
    assert not place.has_grafana()
    with pytest.raises(StackError, match="cannot be copied"):
        place.save_grafana(tmp_path / "none")
    inside_grafana("CREATE TABLE dashboard (title); INSERT INTO dashboard VALUES ('mine')")
    assert place.has_grafana()
    assert saved("first") == ["mine"]
    inside_grafana("UPDATE dashboard SET title = 'changed'")
    place.stage_grafana(tmp_path / "first")
    assert saved("second") == ["changed"]
    place.switch_grafana()
    assert saved("third") == ["mine"]
