"""No secret is ever shown: everything that a run says anywhere is searched for the values of all of them."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx
import pytest
from fastapi import APIRouter
from pydantic import SecretStr

from observability import get_logger
from service.app import create_routes, in_layers
from service.http.dependencies import CurrentContainer
from service.settings import QueueSettings, Settings
from service.settings.loading import GROUPS
from tests.integration.service.harness import BODY, running
from tests.integration.service.launched import PORTS, Process

Configure = Callable[..., Settings]
log = get_logger(__name__)


def known(group: type, number: int) -> str:
    return f"K{number}-known-to-this-test-{group.__name__}-4f8a1c9e7b"


@pytest.fixture
def secrets(configure: Configure, database_url: str, redis_database: str) -> set[str]:
    """Every secret has a value known here; these are they."""
    values = {unquote(urlsplit(url).password or "") for url in (database_url, redis_database)}
    given: dict[str, str] = {}
    broker = known(QueueSettings, 0)
    for group in GROUPS:
        for number, (field, info) in enumerate(group.model_fields.items()):
            # A password goes into its URL, and these URLs have theirs.
            if field in ("url", "password", "rabbitmq_url"):
                continue
            if SecretStr in (info.annotation, *getattr(info.annotation, "__args__", ())):
                given[group.variable(field)] = known(group, number)
    url = f"amqp://yardstick:{broker}@127.0.0.1:1/%2F"
    configure(FILES_S3_ACCESS_KEY="known-and-no-secret", QUEUE_RABBITMQ_URL=url, **given)
    assert len(given) >= 2
    return values | {broker, *given.values()}


def search(text: str, secrets: set[str], where: str) -> None:
    for number, secret in enumerate(sorted(secrets)):
        assert len(secret) >= 32
        # Not `assert secret not in text`: that would print it.
        if secret in text:
            pytest.fail(f"{where} shows secret {number}")


async def asked(url: str, paths: tuple[str, ...]) -> str:
    async with httpx.AsyncClient(base_url=url, timeout=10) as http:
        found = []
        for path in paths:
            answer = await http.get(path)
            found.append(f"{answer.headers} {answer.text}")
        answer = await http.post("/v1/transactions", json=BODY)
        found.append(f"{answer.headers} {answer.text}")
        return "\n".join(found)


PATHS = (
    "/health",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/openapi.json",
    "/docs",
    "/v1/transactions",
    "/no",
)


async def test_settings_hide_their_secrets_in_every_text(configure: Configure, secrets: set[str]) -> None:
    settings = configure()
    for text in (repr(settings), str(settings), f"{settings.database!r} {settings.redis}"):
        assert "**********" in text
        search(text, secrets, "the text of the settings")
    for group in GROUPS:
        loaded = next(part for part in vars_of(settings) if isinstance(part, group))
        search(repr(loaded.model_dump()), secrets, f"the dump of {group.__name__}")
        search(loaded.model_dump_json(), secrets, f"the JSON of {group.__name__}")


def vars_of(settings: Settings) -> list[object]:
    return [getattr(settings, name) for name in settings.__dataclass_fields__]


@pytest.mark.parametrize("env", ["development", "production"])
async def test_real_processes_say_no_secret(
    configure: Configure, secrets: set[str], env: str, tmp_path: Path
) -> None:
    """Debug level where it is allowed; the answers, the logs, and what is printed."""
    configure(
        APP_ENV=env, TELEMETRY_LOG_SINK="stdout", TELEMETRY_LOG_LEVEL="debug", FILES_API_ENABLED="false"
    )
    processes = [Process(module, tmp_path) for module in PORTS]
    try:
        await asyncio.gather(*(process.up() for process in processes))
        texts = [await asked(process.url, PATHS) for process in processes]
        assert ('"openapi":' in texts[0]) == (env == "development")
        await asyncio.sleep(0.5)
        for process in processes:
            process.popen.terminate()
        assert [await process.ended() for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            process.end()
    texts += [process.log.read_text() for process in processes]
    assert all(len(text) > 500 for text in texts)
    for number, text in enumerate(texts):
        search(text, secrets, f"text {number}")


async def test_dependencies_that_refuse_or_are_away_bring_no_secret_out(
    configure: Configure, secrets: set[str], database_url: str, redis_database: str, tmp_path: Path
) -> None:
    wrong = "Wrong-but-secret-all-the-same-0123456789"
    password = unquote(urlsplit(database_url).password or "")
    other = unquote(urlsplit(redis_database).password or "")
    for changes in (
        {
            "DATABASE_URL": database_url.replace(password, wrong),
            "REDIS_URL": redis_database.replace(other, wrong),
        },
        {
            "DATABASE_URL": f"postgresql://u:{wrong}@127.0.0.1:1/d",
            "REDIS_URL": f"redis://:{wrong}@127.0.0.1:1/0",
        },
    ):
        settings = configure(**changes, TELEMETRY_LOG_LEVEL="debug")
        async with running(settings) as service:
            texts = [(await service.http.get(path)).text for path in PATHS]
            answer = await service.http.post("/v1/transactions", json=BODY)
            assert answer.status_code == 503
        texts += [answer.text, (tmp_path / "log.jsonl").read_text()]
        search("\n".join(texts), secrets | {wrong}, "a text")


async def test_a_traceback_shows_no_secret(configure: Configure, secrets: set[str], tmp_path: Path) -> None:
    router = APIRouter()

    @router.get("/bug")
    async def bug(container: CurrentContainer) -> None:
        url = container.settings.database.url.get_secret_value()
        log.info("settings.shown", settings=container.settings, group=container.settings.database)
        raise RuntimeError(f"cannot use {url} of {container.settings}")

    async with running(configure()) as service:
        app = in_layers(create_routes(service.container, [router]), service.container)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as http:
            answer = await http.get("/bug")
        assert answer.status_code == 500
        spans = "\n".join(span.to_json() for span in service.spans())
    written = (tmp_path / "log.jsonl").read_text()
    assert "RuntimeError" in written
    assert "RuntimeError" in spans
    for name, text in (("the answer", answer.text), ("the log", written), ("the span", spans)):
        search(text, secrets, name)
