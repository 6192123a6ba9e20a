"""Messages that no worker can do anything with, and jobs that are the end of theirs."""

import uuid

import pytest

from tests.faults.kills import roles
from tests.faults.poison.conftest import Open
from tests.faults.poison.site import eventually

pytestmark = [pytest.mark.faults, pytest.mark.timeout(240)]

REFUSED_BYTES = 17 << 20
"""More than any engine takes: 10 MiB, and 16 MiB with RabbitMQ."""
TRANSACTION = {"transaction_id": str(uuid.uuid4())}


async def test_a_job_that_kills_its_worker_ends_as_a_dead_letter_and_the_others_go_on(site: Open) -> None:
    async with site(QUEUE_INTERRUPTIONS=5) as one:
        killer = await one.enqueue(roles.KILLER.name, TRANSACTION)
        others = await one.tallies(10)
        row = await one.ended(killer, within=120)
        assert (row["outcome"], row["interruptions"]) == ("dead", 6)
        assert "6 workers took it" in row["history"]
        assert set(one.worker.exits) == {9}
        await one.completed(others, within=60)
        await one.completed(await one.tallies(5))


@pytest.mark.parametrize("body", [b"", b"{}", b"\x00\xff", b'{"id": 1}'], ids=["0 B", "{}", "binary", "part"])
async def test_a_message_that_is_no_envelope_is_a_dead_letter_at_once(site: Open, body: bytes) -> None:
    async with site() as one:
        before = await one.tallies(3)
        await one.put_raw(body)
        after = await one.tallies(3)
        found = await eventually(
            lambda: one.connection.fetch("SELECT * FROM job WHERE name IS NULL AND outcome = 'dead'"), 60
        )
        assert [row["body"] for row in found] == [body]
        assert "not a job envelope" in found[0]["history"]
        await one.completed(before + after)
        assert one.worker.exits == []


async def test_a_job_over_the_limit_is_a_dead_letter_with_its_reason(site: Open) -> None:
    async with site() as one:
        before = await one.tallies(3)
        large = await one.enqueue(roles.TALLY.name, TRANSACTION | {"filling": "x" * REFUSED_BYTES})
        after = await one.tallies(3)
        row = await one.ended(large)
        assert (row["outcome"], row["published_at"]) == ("dead", None)
        assert "RefusedJobError" in row["history"]
        assert "bytes" in row["history"]
        await one.completed(before + after)
        assert one.worker.exits == []


@pytest.mark.parametrize(
    ("name", "payload", "reason"),
    [
        ("maintenance.nobody.v1", TRANSACTION, "no job is named maintenance.nobody.v1"),
        ("transaction.settlement.v9", TRANSACTION, "no job is named transaction.settlement.v9"),
        ("maintenance.tally.v1", {}, "payload is not valid"),
        ("transaction.settlement.v1", {"transactionId": str(uuid.uuid4())}, "no such transaction"),
    ],
    ids=["unknown name", "unknown version", "empty payload", "unknown transaction"],
)
async def test_what_no_retry_can_help_is_a_dead_letter_at_once(
    site: Open, name: str, payload: dict[str, str], reason: str
) -> None:
    async with site() as one:
        hopeless = await one.enqueue(name, payload)
        others = await one.tallies(3)
        row = await one.ended(hopeless)
        assert (row["outcome"], row["attempts"]) == ("dead", 1)
        assert reason in row["history"]
        await one.completed(others)
        assert one.worker.exits == []


async def test_a_job_of_an_unknown_domain_is_a_dead_letter(site: Open) -> None:
    async with site() as one:
        stranger = await one.enqueue("weather.forecast.v1", {})
        others = await one.tallies(3)
        assert (await one.ended(stranger))["outcome"] == "dead"
        await one.completed(others)
        assert one.worker.exits == []
