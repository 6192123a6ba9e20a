"""Who is measured, in which setting, and in which environment."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from compose.model import MissingProgramError
from compose.programs import resolve

ROOT = Path(__file__).parents[2]
BASELINE = "arq"
FILES = "files"
"""The broker of what needs a folder and no server."""
DATABASE = "postgres"


class BenchError(Exception):
    """The benchmark cannot be run as asked."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A contender of the run.

    `target` is where its code is, `environment` whose packages it runs on (None: the project's own), and
    `broker` the server that it talks to. `share` (of the no-op jobs) and `io_share` (of those with I/O) are
    how many times the plan's jobs it is given: fewer where it is slow and more where it is quick, so that a
    run takes some seconds. `outbox`: its jobs go through the service's outbox and effects, in PostgreSQL.
    """

    name: str
    target: str
    packages: tuple[str, ...]
    settings: str
    environment: str | None = None
    broker: str = "redis"
    share: float = 1.0
    io_share: float = 1.0
    ours: bool = False
    outbox: bool = False

    @property
    def python(self) -> Path:
        if self.environment is None:
            return Path(sys.executable)
        return ROOT / ".venv-bench" / self.environment / "bin" / "python"

    @property
    def servers(self) -> set[str]:
        """What has to run for it."""
        return {self.broker} - {FILES} | ({DATABASE} if self.outbox else set())

    def versions(self) -> dict[str, str]:
        """Versions of its packages. Raises BenchError when one is not installed."""
        lack = BenchError(f"not installed in {self.python.parents[1].name}; `make bench` installs it")
        if not self.python.exists():
            raise lack
        command = [str(self.python), "-m", "bench.jobs.side", "versions", *self.packages]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise lack
        known: dict[str, str | None] = json.loads(done.stdout)
        if None in known.values():
            raise lack
        return {name: text for name, text in known.items() if text is not None}


ENTRIES = (
    Entry(
        BASELINE,
        "bench.jobs.arq:default",
        ("arq", "redis"),
        "as it comes: 10 jobs at once, polls every 0.5 s, keeps results for an hour",
        share=0.3,
        io_share=0.07,
    ),
    Entry(
        "arq, tuned",
        "bench.jobs.arq:tuned",
        ("arq", "redis"),
        "max_jobs=100, poll_delay=0.05; keeps results for an hour",
        share=0.7,
        io_share=0.7,
    ),
    Entry(
        "taskiq, list",
        "bench.jobs.taskiq:redis_list",
        ("taskiq", "taskiq-redis", "redis"),
        "ListQueueBroker, max_async_tasks=100 (its default); a job is gone from Redis once it is fetched",
        environment="taskiq",
    ),
    Entry(
        "taskiq, stream",
        "bench.jobs.taskiq:redis_stream",
        ("taskiq", "taskiq-redis", "redis"),
        "RedisStreamBroker, max_async_tasks=100 (its default); acknowledged when the job is done",
        environment="taskiq",
    ),
    Entry(
        "SAQ",
        "bench.jobs.saq:default",
        ("saq", "redis"),
        "concurrency=100, max_concurrent_ops=100 (quicker than its 20), swept once beforehand;"
        " keeps finished jobs for 10 minutes",
        environment="saq",
        share=0.5,
        io_share=0.5,
    ),
    Entry(
        "ours, redis",
        "bench.jobs.ours:redis",
        ("redis",),
        "the engine alone, without outbox; batches of 100, leases, priorities, ended jobs forgotten",
        share=3.0,
        io_share=2.0,
        ours=True,
    ),
    Entry(
        "ours, rabbitmq",
        "bench.jobs.ours:rabbitmq",
        ("aio-pika",),
        "the engine alone, without outbox; durable messages, confirms in batches of 100, priorities",
        io_share=2.0,
        broker="rabbitmq",
        ours=True,
    ),
    Entry(
        "ours, file",
        "bench.jobs.ours:file",
        (),
        "the engine alone, without outbox; one SQLite file, synced to the disk for each batch of 100",
        share=8.0,
        io_share=2.0,
        broker=FILES,
        ours=True,
    ),
    Entry(
        "ours, redis, outbox",
        "bench.jobs.outbox:redis",
        ("asyncpg", "sqlalchemy", "redis"),
        "a row for each job, written in batches of 100, relayed by the worker, ended many at a time",
        ours=True,
        outbox=True,
    ),
    Entry(
        "ours, rabbitmq, outbox",
        "bench.jobs.outbox:rabbitmq",
        ("asyncpg", "sqlalchemy", "aio-pika"),
        "the same",
        broker="rabbitmq",
        ours=True,
        outbox=True,
    ),
    Entry(
        "ours, file, outbox",
        "bench.jobs.outbox:file",
        ("asyncpg", "sqlalchemy"),
        "the same",
        broker=FILES,
        ours=True,
        outbox=True,
    ),
    Entry(
        "ours, redis, outbox, once",
        "bench.jobs.outbox:redis_once",
        ("asyncpg", "sqlalchemy", "redis"),
        "the same, but each job is ended in a transaction of its own, which its effect would share",
        share=0.5,
        io_share=0.5,
        ours=True,
        outbox=True,
    ),
)


def lacking(entry: Entry) -> str:
    """Why a contender cannot be measured on this machine; empty if it can."""
    try:
        entry.versions()
        for server in sorted(entry.servers):
            resolve(server, lambda _text: None, fetch=False)
    except BenchError as error:
        return str(error)
    except MissingProgramError as error:
        return f"{error.name}: {'; '.join(error.reasons)}"
    return ""


def chosen(names: str, entries: tuple[Entry, ...] = ENTRIES) -> list[Entry]:
    """The entries whose name begins with one of `names` (commas between), all for none. Raises BenchError.

    Of the entries' own names the commas are left out: `ours redis`.
    """
    wanted = [name.strip().lower() for name in names.split(",") if name.strip()]

    def begins(entry: Entry, name: str) -> bool:
        return entry.name.lower().replace(",", "").startswith(name)

    unknown = [name for name in wanted if not any(begins(entry, name) for entry in entries)]
    if unknown:
        raise BenchError(f"no contender {unknown[0]!r}; there are: {'; '.join(e.name for e in entries)}")
    return [entry for entry in entries if not wanted or any(begins(entry, name) for name in wanted)]
