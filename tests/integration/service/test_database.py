"""Migrations both ways, the seed, entities, units of work, the relay beside another."""

import asyncio
import subprocess
import sys
from collections.abc import Callable

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.orm.exc import StaleDataError

from observability import Metrics
from service.db import migrate
from service.db.jobs import backlog
from service.db.jobs.relay import Relay, RelayMetrics
from service.db.session import Database
from service.errors import UnavailableError
from service.features.transactions.models import Transaction
from service.settings import DatabaseSettings
from service.tables import TABLES
from tests.integration.service.harness import Service

Environment = Callable[..., dict[str, str]]


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    finally:
        await connection.close()
    return {row["tablename"] for row in found} - {"alembic_version"}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "service.db", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_migrations_go_up_down_and_up_again(empty_database: str) -> None:
    settings = DatabaseSettings.model_validate({"url": empty_database})
    everything = {table.__tablename__ for table in TABLES}
    await asyncio.to_thread(migrate.upgrade, settings)
    assert await tables(empty_database) == everything
    await asyncio.to_thread(migrate.downgrade, settings, "base")
    assert await tables(empty_database) == set()
    await asyncio.to_thread(migrate.upgrade, settings)
    await asyncio.to_thread(migrate.upgrade, settings)
    assert await tables(empty_database) == everything
    await asyncio.to_thread(migrate.check, settings)


async def test_upgrades_at_once_wait_for_each_other(
    environment: Environment, empty_database: str, repository: str
) -> None:
    environment(DATABASE_URL=empty_database, PYTHONPATH=repository)
    runs = await asyncio.gather(*(asyncio.to_thread(command, "upgrade") for _ in range(3)))
    assert [run.returncode for run in runs] == [0, 0, 0], [run.stderr for run in runs]
    assert await tables(empty_database) == {table.__tablename__ for table in TABLES}


async def test_the_command_migrates_and_seeds_once(
    environment: Environment, empty_database: str, repository: str
) -> None:
    environment(DATABASE_URL=empty_database, PYTHONPATH=repository)
    done = [command("upgrade"), command("seed"), command("seed"), command("check")]
    assert [run.returncode for run in done] == [0, 0, 0, 0], [run.stderr for run in done]
    assert [run.stdout for run in done[1:3]] == ["50 transactions added\n", "0 transactions added\n"]


def test_the_command_says_why_it_cannot(environment: Environment, repository: str) -> None:
    environment(DATABASE_URL="postgresql://u:hidden-word@127.0.0.1:1/d", PYTHONPATH=repository)
    for run in (command("upgrade"), command("seed")):
        assert run.returncode == 1
        assert "failed" in run.stderr
        assert "Traceback" not in run.stderr
        assert "hidden-word" not in run.stderr
    environment(DATABASE_URL="nonsense")
    refused = command("upgrade")
    assert refused.returncode == 78
    assert refused.stderr.startswith("DATABASE_URL: must start with postgresql://")


async def test_a_lost_race_is_stale_data(service: Service) -> None:
    await service.create()

    async def late() -> None:
        async with service.container.database.unit() as slow:
            [mine] = await service.rows(Transaction)
            row = await slow.session.get(Transaction, mine.id)
            assert row is not None
            async with service.container.database.unit() as fast:
                theirs = await fast.session.get(Transaction, mine.id)
                assert theirs is not None
                theirs.reference = "first"
            row.reference = "second"

    with pytest.raises(StaleDataError):
        await late()
    [row] = await service.rows(Transaction)
    assert (row.reference, row.version) == ("first", 2)
    assert row.updated_at > row.created_at


async def test_keys_ascend_and_are_not_shown(service: Service) -> None:
    shown = [await service.create(reference=f"r{n}") for n in range(5)]
    rows = sorted(await service.rows(Transaction), key=lambda row: row.id)
    assert [str(row.public_id) for row in rows] == [item["id"] for item in shown]
    assert not any(str(row.id) in str(shown) for row in rows)


async def test_two_relays_share_the_work(service: Service) -> None:
    for number in range(30):
        await service.create(reference=f"r{number}")
    container, counts = service.container, RelayMetrics(service.container.telemetry.metrics)
    settings = container.settings.outbox.model_copy(update={"batch": 10})
    relays = [Relay(settings, container.database, container.queue, container.jobs, counts) for _ in range(2)]
    shares = await asyncio.gather(*(relay.relay_batch() for relay in relays))
    assert sum(shares) == 20
    while await relays[0].relay_batch():
        pass
    assert (await container.queue.stats()).waiting == 30
    assert service.metric("yardstick_outbox_published_total") == 30
    async with container.database.unit() as unit:
        found = await backlog.measure(unit)
    assert (found.pending, found.open, found.dead) == (0, 30, 0)


async def test_a_statement_alone_is_a_transaction(service: Service) -> None:
    database, scope = service.container.database, {"scope": "report"}
    added = text("INSERT INTO queue_pause (id, scope, reason) VALUES (1, :scope, 'test') RETURNING scope")
    asked = text("SELECT scope FROM queue_pause WHERE scope = :scope")
    assert [row.scope for row in await database.statement(added, scope)] == ["report"]
    # On the same connection, which the pool hands out last in first out: a unit still is one.
    async with database.unit() as unit:
        await unit.session.execute(text("DELETE FROM queue_pause"))
        await unit.session.rollback()
    assert len(await database.statement(asked, scope)) == 1


async def test_a_statement_without_its_server_is_unavailable() -> None:
    settings = DatabaseSettings.model_validate({"url": "postgresql://nobody:none@127.0.0.1:1/none"})
    database = Database(settings, application="test", metrics=Metrics(CollectorRegistry(), "test"))
    with pytest.raises(UnavailableError):
        await database.statement(text("SELECT 1"), {})
    await database.close()
