"""Telemetry for units that count."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from observability import Telemetry, TelemetryConfig


@pytest.fixture
async def telemetry(tmp_path: Path) -> AsyncIterator[Telemetry]:
    started = Telemetry.start(
        TelemetryConfig(
            service_name="unit", namespace="yardstick", log_sink="file", log_file=tmp_path / "log.jsonl"
        )
    )
    yield started
    await started.close(timeout=1.0)
