"""Fixtures that start telemetry and close it again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from observability import Telemetry, TelemetryConfig
from tests.unit.observability.harness import Answer, Harness, request


@pytest.fixture
def call() -> Callable[..., Awaitable[Answer]]:
    return request


@pytest_asyncio.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Harness]]:
    """Starts telemetry with other settings; all of them are closed after the test."""
    started: list[Telemetry] = []

    def begin(**settings: Any) -> Harness:
        exporter = settings.pop("exporter", None)
        log_file = tmp_path / f"log{len(started)}.jsonl"
        values: dict[str, Any] = {
            "service_name": "orders",
            "namespace": "shop",
            "environment": "test",
            "instance": "unit:1",
            "log_sink": "file",
            "log_file": log_file,
        } | settings
        telemetry = Telemetry.start(TelemetryConfig(**values), exporter=exporter)
        started.append(telemetry)
        return Harness(telemetry, log_file)

    yield begin
    for telemetry in reversed(started):
        await telemetry.close(timeout=1.0)


@pytest.fixture
def harness(start: Callable[..., Harness]) -> Harness:
    return start()
