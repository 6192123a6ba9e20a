"""A backend dies while requests come in; what was acknowledged is neither lost nor done twice."""

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx
import pytest

from compose.native import Stack
from tests.live import Live, eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(400)]


@dataclass
class Traffic:
    """What a steady client saw: request ID and transaction of each 201, and everything else."""

    accepted: dict[str, str] = field(default_factory=dict)
    refused: list[httpx.Response] = field(default_factory=list)
    broken: list[httpx.HTTPError] = field(default_factory=list)


@contextmanager
def traffic(live: Live, rate: float = 20.0) -> Iterator[Traffic]:
    """About `rate` new transactions a second while the block runs."""
    seen, stop = Traffic(), threading.Event()

    def client() -> None:
        with httpx.Client(timeout=30) as http:
            while not stop.wait(1 / rate):
                request_id = f"fault-{uuid.uuid4()}"
                body = {"amount": "1.00", "currency": "EUR", "reference": request_id}
                try:
                    answer = http.post(
                        f"{live.url('api')}/v1/transactions", json=body, headers={"X-Request-ID": request_id}
                    )
                except httpx.HTTPError as error:
                    seen.broken.append(error)
                    continue
                if answer.status_code == 201:
                    seen.accepted[request_id] = answer.json()["data"]["id"]
                else:
                    seen.refused.append(answer)

    thread = threading.Thread(target=client)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def more(seen: Traffic, count: int) -> None:
    """Wait until `count` more requests were accepted."""
    start = len(seen.accepted)
    eventually(
        lambda: len(seen.accepted) >= start + count, within=60, every=0.1, what=f"{count} more accepted"
    )


def all_settled_once(live: Live, seen: Traffic) -> None:
    for transaction_id in seen.accepted.values():
        live.settled(transaction_id, within=60)
    expected = sorted(seen.accepted.values())

    def settled_lines() -> list[str]:
        lines = live.logs('{service_name="yardstick-worker"} | event="transaction.settled"')
        ids = [json.loads(line)["transactionId"] for line in lines]
        return sorted(i for i in ids if i in set(expected))

    eventually(lambda: len(settled_lines()) >= len(expected), within=90, what="a line for each effect")
    assert settled_lines() == expected, "an effect happened twice"


def all_logged(live: Live, seen: Traffic) -> None:
    """Every accepted request has its access line in Loki, exactly once."""
    expected = set(seen.accepted)

    def logged() -> list[str]:
        lines = live.logs('{service_name="yardstick-api"} | event="http.request" |= "fault-"')
        return [i for line in lines if (i := json.loads(line)["requestId"]) in expected]

    eventually(lambda: set(logged()) == expected, within=120, every=2, what=f"{len(expected)} access lines")


def test_redis_dies_between_commit_and_enqueue(live: Live, stack: Stack) -> None:
    with traffic(live) as seen:
        more(seen, 20)
        stack.kill("redis")
        more(seen, 60)
        assert live.http.get(f"{live.url('api')}/health/ready").status_code == 200
        stack.start("redis")
        more(seen, 20)
    assert not seen.refused, seen.refused[0].text
    assert not seen.broken
    all_settled_once(live, seen)


def test_the_worker_dies_under_load(live: Live, stack: Stack) -> None:
    with traffic(live) as seen:
        more(seen, 40)
        stack.kill("worker")
        more(seen, 40)
        stack.start("worker")
        more(seen, 20)
    assert not seen.refused, seen.refused[0].text
    assert not seen.broken
    all_settled_once(live, seen)


def test_the_database_dies_under_load(live: Live, stack: Stack) -> None:
    with traffic(live) as seen:
        more(seen, 20)
        stack.kill("postgres")
        eventually(lambda: len(seen.refused) >= 3, every=0.1, what="refused requests")
        assert live.http.get(f"{live.url('api')}/health/ready").status_code == 503
        assert live.http.get(f"{live.url('api')}/health/live").status_code == 200
        stack.start("postgres")
        more(seen, 20)
    assert not seen.broken
    for answer in seen.refused:
        assert answer.status_code == 503, answer.text
        assert answer.json()["error"]["code"] == "unavailable"
        assert "Retry-After" in answer.headers
    all_settled_once(live, seen)


@pytest.mark.parametrize("name", ["loki", "tempo", "otelcol"])
def test_a_telemetry_backend_dies_under_load(live: Live, stack: Stack, name: str) -> None:
    live.need(name, "loki")
    with traffic(live) as seen:
        more(seen, 20)
        stack.kill(name)
        more(seen, 100)
        stack.start(name)
        more(seen, 20)
    assert not seen.refused, seen.refused[0].text
    assert not seen.broken
    all_logged(live, seen)
    all_settled_once(live, seen)
