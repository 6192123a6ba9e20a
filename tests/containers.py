"""What the tests of containers share: whether there is an engine, a stack of their own on it, and load."""

import json
import os
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import pytest

from compose.components import COMPONENTS
from compose.docker import ENGINES, PUBLISHED, Container, Containers, engine
from compose.effective import by_yaml
from compose.graph import by_name
from tests.ports import free_port


def docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of the engine's client, to its end."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120, check=False)


def why_not(*profiles: str) -> str:
    """What keeps this machine from running the stack in containers, or nothing."""
    if not engine():
        return "no Docker engine with compose answers here"
    if os.environ.get("YARDSTICK_COMPOSE"):
        return ""
    wanted = {
        one["image"]
        for one in by_yaml()["services"].values()
        if "build" not in one and set(one.get("profiles", ())) <= set(profiles)
    }
    absent = sorted(image for image in wanted if docker("image", "inspect", image).returncode)
    return f"images are not on this machine (docker pull fetches them): {', '.join(absent)}" if absent else ""


@contextmanager
def containers(folder: Path, **environment: str) -> Iterator[Containers]:
    """A stack of its own, beside any other of this machine; removed with its volumes at the end."""
    if reason := why_not(*(environment.get(name, "") for name in ENGINES)):
        pytest.skip(reason)
    # Ports of its own: between the choice of the usual ones and their use others may take them.
    own = {variable: str(free_port()) for variable, _ in PUBLISHED.values()}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**own, **environment}.items():
            patch.setenv(name, value)
        stack = Containers(folder)
        try:
            assert stack.up() == 0, "compose has told why above"
            yield stack
        finally:
            stack.down(volumes=True)


def eventually(check: Callable[[], Any], seconds: float = 60.0) -> Any:
    """The first true answer of `check`, or its last one."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.25)


def named(stack: Containers, service: str) -> Container:
    """The first container of a service."""
    return next(one for one in stack.status() if one.service == service)


def targets(stack: Containers) -> list[tuple[str, str, str]]:
    """Job, address and health of everything that Prometheus scrapes."""
    found = httpx.get(stack.endpoints()["prometheus"] + "/api/v1/targets", timeout=10).json()
    active = found["data"]["activeTargets"]
    return sorted((one["labels"]["job"], one["labels"]["instance"], one["health"]) for one in active)


def reachable(stack: Containers) -> dict[str, str]:
    """Where the components answer: what is published, and the stores by the address of their container.

    Only an engine on this very machine, on Linux, gives such a way in.
    """
    found = stack.endpoints()
    for name in ("loki", "tempo"):
        shown = docker("inspect", "--format", "{{json .NetworkSettings.Networks}}", *stack.ids(name))
        address = next(iter(json.loads(shown.stdout).values()))["IPAddress"]
        found[name] = f"http://{address}:{by_name(COMPONENTS)[name].ports['http']}"
    return found


def create(api: str, reference: str) -> str:
    """A new transaction's ID."""
    body = {"amount": "12.50", "currency": "EUR", "reference": reference}
    answer = httpx.post(f"{api}/v1/transactions", json=body, timeout=30)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"]["id"])


def settled(api: str, transaction: str) -> bool:
    """Whether the worker has done its job."""
    found = httpx.get(f"{api}/v1/transactions/{transaction}", timeout=30)
    return bool(found.status_code == 200 and found.json()["data"]["status"] == "settled")


def left_out(stack: Containers) -> dict[str, str]:
    """The components that have no container although they belong to the stack."""
    wanted = [one.name for one in COMPONENTS if one.belongs(os.environ) and one.name in by_yaml()["services"]]
    return {name: "it has no container in this stack" for name in wanted if not stack.ids(name)}


class Load:
    """Clients that read and write through the edge from `with` to its end, each on a connection that is kept.

    Attributes:
        outcomes: how often what happened: `GET 200`, `POST 201`, or the name of an error.
        created: the transactions that the service said it has made.
    """

    def __init__(self, api: str, clients: int = 10) -> None:
        self.outcomes: Counter[str] = Counter()
        self.created: list[str] = []
        self._url = f"{api}/v1/transactions"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._client, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> dict[str, int]:
        """Everything but what was asked for."""
        return {what: n for what, n in self.outcomes.items() if what not in ("GET 200", "POST 201")}

    def _client(self, number: int) -> None:
        body = {"amount": "1.00", "currency": "EUR", "reference": f"load-{number}"}
        with httpx.Client(timeout=30) as http:
            while not self._stop.wait(0.02):
                try:
                    answer = http.post(self._url, json=body) if number % 2 else http.get(self._url)
                    self.outcomes[f"{answer.request.method} {answer.status_code}"] += 1
                    if answer.status_code == 201:
                        self.created.append(answer.json()["data"]["id"])
                except httpx.HTTPError as error:
                    self.outcomes[type(error).__name__] += 1
