"""The container closes what it opened, also when opening stops half-way."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from service import container as module
from service.container import open_container
from service.db.session import Database
from service.errors import StartError
from service.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    (tmp_path / ".env").write_text(
        "DATABASE_URL=postgresql://u:p@127.0.0.1:1/d\nREDIS_URL=redis://127.0.0.1:1/0\nAPP_ENV=test\n"
        f"TELEMETRY_OTLP_ENDPOINT=\nTELEMETRY_LOG_SINK=file\nTELEMETRY_LOG_FILE={tmp_path / 'log.jsonl'}\n"
    )
    monkeypatch.chdir(tmp_path)
    return load_settings(tmp_path)


def left_over() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


async def test_it_opens_with_everything_down_and_leaves_nothing(settings: Settings) -> None:
    before, handlers = left_over(), list(logging.root.handlers)
    async with open_container(settings, "api") as container:
        assert not await container.health.ready()
        assert left_over() > before
    assert left_over() == before
    assert logging.root.handlers == handlers


async def test_a_log_file_that_cannot_be_written_is_one_line(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    log_file = tmp_path / "file" / "log.jsonl"
    telemetry = settings.telemetry.model_copy(update={"log_file": log_file})
    with pytest.raises(StartError, match=f"TELEMETRY_LOG_FILE: cannot write {log_file}: "):
        async with open_container(replace(settings, telemetry=telemetry), "api"):
            pytest.fail("it cannot open")


async def test_a_failure_half_way_closes_what_was_open(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no queue")

    closed: list[str] = []
    original = Database.close

    async def close(self: Database) -> None:
        closed.append("database")
        await original(self)

    monkeypatch.setattr(module, "_queue", broken)
    monkeypatch.setattr(Database, "close", close)
    before, handlers = left_over(), list(logging.root.handlers)
    with pytest.raises(RuntimeError, match="no queue"):
        async with open_container(settings, "worker"):
            pytest.fail("it cannot open")
    assert closed == ["database"]
    assert left_over() == before
    assert logging.root.handlers == handlers
