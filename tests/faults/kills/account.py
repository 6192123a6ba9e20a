"""What became of everything that was accepted: what is lost, done twice, or dead by accident."""

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg

from tests.faults.kills.load import Load

_UNENDED = "SELECT count(*) FROM job WHERE outcome IS NULL"

# Each gives what it is called for as text, one row for each finding.
_LOST = {
    "a transaction without its settlement": """
        SELECT t.public_id::text FROM transaction t WHERE NOT EXISTS (
          SELECT FROM job j WHERE j.name = 'transaction.settlement.v1'
             AND j.payload ->> 'transactionId' = t.public_id::text)""",
    "a transaction whose settlement has ended and that is pending": """
        SELECT t.public_id::text FROM transaction t WHERE t.status <> 'settled'""",
    "a settled transaction without the job that its settlement enqueued": """
        SELECT t.public_id::text FROM transaction t WHERE t.status = 'settled' AND NOT EXISTS (
          SELECT FROM job j WHERE j.name = 'maintenance.tally.v1'
             AND j.payload ->> 'transaction_id' = t.public_id::text)""",
    "a job that has not ended": """
        SELECT job_id || ' ' || name || CASE WHEN published_at IS NULL THEN ' un' ELSE ' ' END || 'published'
          FROM job WHERE outcome IS NULL""",
    "a completed job without an effect": """
        SELECT job_id || ' ' || name FROM job j WHERE outcome = 'completed'
           AND NOT EXISTS (SELECT FROM effect e WHERE e.job_id = j.job_id)""",
}
_TWICE = {
    "a job with more than one effect": """
        SELECT job_id || ' ' || count(*) FROM effect GROUP BY job_id HAVING count(*) > 1""",
    "a transaction with more than one job of a kind": """
        SELECT name || ' ' || min(payload::text) FROM job
         WHERE name IN ('transaction.settlement.v1', 'maintenance.tally.v1')
           AND coalesce(payload ->> 'transactionId', payload ->> 'transaction_id') IS NOT NULL
         GROUP BY name, coalesce(payload ->> 'transactionId', payload ->> 'transaction_id')
        HAVING count(*) > 1""",
}


@dataclass(frozen=True)
class Account:
    """Findings as texts; of a sound run all three are empty."""

    jobs: int
    effects: int
    dead: int
    lost: list[str]
    twice: list[str]
    unexpected: list[str]


async def drained(url: str, stalled: float) -> float:
    """Wait until every job has ended, or none has for so many seconds; gives how long it took (seconds).

    A slow machine may have a long backlog. That is not lost as long as it grows shorter.
    """
    started = since = time.monotonic()
    connection = await asyncpg.connect(url)
    try:
        before = None
        while (left := await connection.fetchval(_UNENDED)) and time.monotonic() - since < stalled:
            if left != before:
                before, since = left, time.monotonic()
            await asyncio.sleep(0.2)
    finally:
        await connection.close()
    return time.monotonic() - started


async def account(url: str, load: Load, poison: Collection[UUID]) -> Account:
    """Compare the client's ledger with the tables. `poison` are the jobs that are to be dead letters."""
    connection = await asyncpg.connect(url)
    try:
        rows: dict[str, str] = dict(
            await connection.fetch("SELECT reference, public_id::text FROM transaction")
        )
        lost = [
            f"accepted and not there: {reference} {found}"
            for reference, found in load.accepted.items()
            if rows.get(reference) != found
        ]
        lost += await _findings(connection, _LOST)
        strangers = rows.keys() - load.accepted.keys() - load.unknown
        unexpected = [f"a transaction that nobody asked for: {reference}" for reference in strangers]
        dead = await connection.fetch(
            "SELECT job_id, name, outcome, history -> -1 ->> 'error' AS error FROM job"
            " WHERE outcome IS NOT NULL AND outcome <> 'completed'"
        )
        unexpected += [
            f"{r['outcome']}: {r['job_id']} {r['name']}: {r['error']}"
            for r in dead
            if r["job_id"] not in poison
        ]
        missing = set(poison) - {r["job_id"] for r in dead if r["outcome"] == "dead"}
        unexpected += [f"poison that is no dead letter: {job}" for job in missing]
        return Account(
            jobs=await connection.fetchval("SELECT count(*) FROM job"),
            effects=await connection.fetchval("SELECT count(*) FROM effect"),
            dead=len(dead),
            lost=lost,
            twice=await _findings(connection, _TWICE),
            unexpected=unexpected,
        )
    finally:
        await connection.close()


async def _findings(connection: Any, queries: dict[str, str]) -> list[str]:
    return [f"{what}: {row[0]}" for what, query in queries.items() for row in await connection.fetch(query)]
