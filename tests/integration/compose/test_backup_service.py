"""A backup of the service at work, restored into an empty stack of the service; what becomes of its jobs."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from compose.backup.archive import Archive
from compose.backup.processes import Processes
from compose.backup.restore import restore
from compose.backup.take import take
from compose.model import StackError
from compose.native import Stack
from tests.integration.compose.backups import command, finished, rewritten, sql, until

SERVICE = ("postgres", "redis", "migrate", "api", "worker", "scheduler")
UNCHANGING = "SELECT public_id, amount, currency, reference, created_at FROM transaction ORDER BY id"

# Gives the queue a job of which no database knows, as if it had been enqueued after the backup.
STRANGER = """
import asyncio, datetime, sys, uuid
from service.container import open_container
from service.features.transactions.settlement import SETTLEMENT
from service.infra.queues.interface import Job
from service.settings import load_settings

async def main():
    async with open_container(load_settings(), "api") as container:
        now = datetime.datetime.now(datetime.UTC)
        job = Job.model_validate({"id": sys.argv[1], "name": SETTLEMENT.name, "due_at": now,
                                  "payload": {"transactionId": str(uuid.uuid4())}})
        assert await container.queue.publish([job]) == [None]

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The service at work."""
    with Stack(tmp_path_factory.mktemp("service"), only=SERVICE) as stack:
        yield stack


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One that nobody has used."""
    with Stack(tmp_path_factory.mktemp("empty"), only=SERVICE) as stack:
        yield stack


def create(stack: Stack, reference: str) -> str:
    """A new transaction's ID."""
    body = {"amount": "12.50", "currency": "EUR", "reference": reference}
    answer = httpx.post(f"{stack.endpoints()['api']}/v1/transactions", json=body, timeout=30)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["data"]["id"])


def pending(stack: Stack) -> int:
    return int(sql(stack, "SELECT count(*) FROM transaction WHERE status <> 'settled'")[0][0])


def test_a_service_at_work_comes_back_in_an_empty_stack(service: Stack, empty: Stack, tmp_path: Path) -> None:
    stop, accepted = threading.Event(), []

    def traffic() -> None:
        while not stop.is_set():
            accepted.append(create(service, "during"))

    client = threading.Thread(target=traffic)
    client.start()
    try:
        until(lambda: len(accepted) > 20, "traffic")
        path, manifest = take(Processes(service), tmp_path, lambda _: None)
        taken = len(accepted)
        until(lambda: len(accepted) > taken + 3, "traffic goes on")
    finally:
        stop.set()
        client.join()
    rows = manifest.tables["public.transaction"].rows
    assert 20 < rows < len(accepted)
    there = sql(service, UNCHANGING)

    before = empty.pid("api")
    code, said = finished(command(empty, "restore", str(path)))
    assert code == 0, said
    assert "counts and hashes are those of the manifest" in said
    assert sql(empty, UNCHANGING) == there[:rows]
    assert empty.pid("api") not in (before, None)
    create(empty, "after")
    assert [one.condition for one in empty.status() if one.wanted and not one.good] == []


def test_jobs_that_only_the_old_broker_carried_are_done_all_the_same(
    service: Stack, empty: Stack, tmp_path: Path
) -> None:
    service.stop("worker")
    carried = [create(service, f"carried {number}") for number in range(3)]
    # As a relay leaves them that has handed them over, long enough ago; the last one no relay has seen.
    sql(
        service,
        "UPDATE job SET published_at = now() - interval '1 h', due_at = now() - interval '1 h'"
        " WHERE outcome IS NULL AND id <> (SELECT max(id) FROM job)",
    )
    path, _ = take(Processes(service), tmp_path, lambda _: None)
    service.start("worker")
    restore(Processes(empty), Archive.of(path), lambda _: None, force=True)
    for transaction in carried:
        address = f"{empty.endpoints()['api']}/v1/transactions/{transaction}"
        settled = partial(
            lambda url: httpx.get(url, timeout=30).json()["data"]["status"] == "settled", address
        )
        until(settled, "it is settled")
    ended = "SELECT count(*) FROM job WHERE name = 'transaction.settlement.v1' AND outcome = 'completed'"
    until(lambda: pending(empty) == 0, "all others are too")
    assert sql(empty, ended)[0][0] >= 3


def test_a_job_of_the_broker_that_the_restored_data_does_not_know_is_a_dead_letter(
    service: Stack, tmp_path: Path
) -> None:
    settled = create(service, "settled")
    until(lambda: pending(service) == 0, "it is settled")
    path, _ = take(Processes(service), tmp_path, lambda _: None)
    later = create(service, "later")
    until(lambda: pending(service) == 0, "it is settled")
    api = service.endpoints()["api"]
    # Settled, it is in the API's cache from now on, for minutes.
    assert httpx.get(f"{api}/v1/transactions/{later}", timeout=30).json()["data"]["status"] == "settled"
    service.stop("worker")
    stranger = "0197a0f0-0000-7000-8000-00000000cafe"
    own = {**os.environ, **service.environment("api"), "TELEMETRY_LOG_SINK": "stdout"}
    subprocess.run([sys.executable, "-c", STRANGER, stranger], env=own, check=True, stdout=subprocess.DEVNULL)
    restore(Processes(service), Archive.of(path), lambda _: None, force=True)
    service.start("worker")
    outcome = "SELECT outcome FROM job WHERE job_id = $1 AND outcome IS NOT NULL"
    until(lambda: sql(service, outcome, stranger), "the job has ended")
    assert sql(service, outcome, stranger)[0][0] == "dead"
    references = {row["reference"] for row in sql(service, "SELECT reference FROM transaction")}
    assert "settled" in references
    assert httpx.get(f"{api}/v1/transactions/{later}", timeout=30).status_code == 404
    assert httpx.get(f"{api}/v1/transactions/{settled}", timeout=30).json()["data"]["status"] == "settled"


def test_after_a_restore_that_failed_the_service_runs_on_the_old_data(service: Stack, tmp_path: Path) -> None:
    path, _ = take(Processes(service), tmp_path, lambda _: None)
    later = create(service, "must stay")
    other = rewritten(
        path, tmp_path / "other.zip", lambda m: m["tables"]["public.transaction"].update(sha256="0" * 64)
    )
    with pytest.raises(StackError, match=r"data is as before\. public\.transaction has other content"):
        restore(Processes(service), Archive.of(other), lambda _: None, force=True)
    answer = httpx.get(f"{service.endpoints()['api']}/v1/transactions/{later}", timeout=30)
    assert answer.status_code == 200
    assert [one.condition for one in service.status() if one.wanted and not one.good] == []
    left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'yardstick\\_%'"
    assert sql(service, left)[0][0] == 0
