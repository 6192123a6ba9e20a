"""The `file` engine for the contract: a file of its own in the test's folder."""

import shutil
import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.infra.queues.file import FileQueue
from service.infra.queues.interface import JobQueue
from tests.contract.queues.harness import LEASE


def open_queue(
    path: str, lease_seconds: float = LEASE, poll_seconds: float = 0.05, **options: Any
) -> FileQueue:
    return FileQueue(Path(path), name="contract", poll=poll_seconds, lease=lease_seconds, **options)


class FileBroker:
    """A queue file in a folder of its own; no server stands behind it."""

    engine = "file"

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "queue" / "jobs.db"
        self._opened: list[FileQueue] = []

    def open(self, *, lease_seconds: float = LEASE, poll_seconds: float = 0.05, **changes: Any) -> FileQueue:
        queue = open_queue(str(self.path), lease_seconds, poll_seconds, **changes)
        self._opened.append(queue)
        return queue

    def away(self) -> JobQueue:
        """A queue whose disk was taken away."""
        lost = self.folder / "lost"
        queue = open_queue(str(lost / "jobs.db"))
        shutil.rmtree(lost)
        self._opened.append(queue)
        return queue

    def recipe(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}:open_queue", {"path": str(self.path)}

    async def put_raw(self, body: bytes) -> None:
        with closing(sqlite3.connect(self.path)) as file, file:
            file.execute(
                "INSERT INTO jobs(job_id, priority, due, body) VALUES (?, 2, 0, ?)", (str(uuid.uuid4()), body)
            )

    async def close(self) -> None:
        for queue in self._opened:
            await queue.close()


@pytest.fixture
async def file_broker(tmp_path: Path) -> AsyncIterator[FileBroker]:
    broker = FileBroker(tmp_path)
    yield broker
    await broker.close()
