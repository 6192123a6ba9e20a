"""A fresh database and an empty Redis for every test, on the run's private servers."""

import asyncio
import logging
import os
import re
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import asyncpg
import orjson
import pytest
from redis import Redis

from service.db import migrate
from service.settings import DatabaseSettings, Settings, load_settings
from service.settings.loading import GROUPS
from tests.integration.service.harness import Service, running

logging.getLogger("httpx").setLevel(logging.WARNING)
PREFIXES = tuple(str(group.model_config["env_prefix"]) for group in GROUPS)
TEMPLATE = "service_template"

Configure = Callable[..., Settings]


def sql(url: str, *statements: str) -> None:
    """Run statements outside of a transaction; in a thread, since a fixture may run inside the loop."""

    async def execute() -> None:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    aside(lambda: asyncio.run(execute()))


def aside(call: Callable[[], object]) -> None:
    """Run what brings a loop of its own in a thread of its own.

    This thread's loop stands still meanwhile. With a service on it use `asyncio.to_thread`: one of its
    transactions could stand still too, with a lock that the call waits for.
    """
    failures: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def at(url: str, database: str) -> str:
    return re.sub(r"/[^/]*$", f"/{database}", url)


@pytest.fixture(scope="session")
def template(postgres_url: str) -> str:
    """A migrated database to copy."""
    sql(postgres_url, f"CREATE DATABASE {TEMPLATE}")
    settings = DatabaseSettings.model_validate({"url": at(postgres_url, TEMPLATE)})
    aside(lambda: migrate.upgrade(settings))
    return TEMPLATE


@pytest.fixture
def empty_database(postgres_url: str) -> Iterator[str]:
    """URL of a database without tables."""
    name = f"t_{uuid.uuid4().hex}"
    sql(postgres_url, f"CREATE DATABASE {name}")
    yield at(postgres_url, name)
    sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(postgres_url: str, template: str) -> Iterator[str]:
    """URL of a migrated database."""
    name = f"t_{uuid.uuid4().hex}"
    sql(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield at(postgres_url, name)
    sql(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_database(redis_url: str) -> str:
    """URL of an empty Redis database."""
    url = at(redis_url, "5")
    client = Redis.from_url(url)
    client.flushdb()
    client.close()
    return url


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Sets variables of the service and removes all others of its prefixes; gives what is in force."""
    for name in list(os.environ):
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def change(**variables: object) -> dict[str, str]:
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))
        return {name: value for name, value in os.environ.items() if name.startswith(PREFIXES)}

    return change


@pytest.fixture
def configure(
    environment: Callable[..., dict[str, str]], database_url: str, redis_database: str, tmp_path: Path
) -> Configure:
    """Settings for this test's servers, with changes."""
    environment(
        APP_ENV="test",
        APP_DRAIN_NOTICE_SECONDS=0,
        DATABASE_URL=database_url,
        REDIS_URL=redis_database,
        REDIS_RETRIES=0,
        REDIS_CONNECT_TIMEOUT_SECONDS=1,
        OUTBOX_POLL_SECONDS=0.02,
        QUEUE_POLL_SECONDS=0.02,
        QUEUE_SAMPLE_SECONDS=0.1,
        RATE_LIMIT_DEFAULT="1000000/hour",
        TELEMETRY_OTLP_ENDPOINT="",
        TELEMETRY_LOG_SINK="file",
        TELEMETRY_LOG_FILE=tmp_path / "log.jsonl",
    )

    def change(**variables: object) -> Settings:
        environment(**variables)
        return load_settings()

    return change


@pytest.fixture
async def service(configure: Configure) -> AsyncIterator[Service]:
    """The service on this test's database and Redis."""
    async with running(configure()) as running_service:
        yield running_service


@pytest.fixture
def log_lines(tmp_path: Path) -> Callable[[], list[dict[str, object]]]:
    """The log lines written so far."""
    return lambda: [orjson.loads(line) for line in (tmp_path / "log.jsonl").read_bytes().splitlines()]


@pytest.fixture
def repository() -> str:
    """The folder that holds the packages, for processes started elsewhere."""
    return str(Path(__file__).parents[3])
