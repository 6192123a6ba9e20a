"""What is done to the table of jobs: put in, take, renew, end. Each runs in a transaction of the writer."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.infra.queues.file_schema import now_us
from service.infra.queues.interface import PRIORITIES, Again, Delivery, QueueStats

Row = Mapping[str, object]
"""job_id, priority (0 is the most urgent), due (microseconds of the epoch), body."""

_LEVELS = range(len(PRIORITIES))
_INSERT = """
INSERT INTO jobs(job_id, priority, due, body) SELECT :job_id, :priority, :due, :body
WHERE NOT EXISTS (SELECT 1 FROM jobs WHERE job_id = :job_id AND lease IS NULL)
"""
_EXPIRE = "UPDATE jobs SET lease = NULL, owner = NULL WHERE lease <= ?"
_TAKE = """
UPDATE jobs SET lease = ?, owner = ?, deliveries = deliveries + 1 WHERE id IN (
  SELECT id FROM jobs WHERE lease IS NULL AND priority = ? AND due <= ? ORDER BY due, id LIMIT ?)
RETURNING due, id, job_id, body, deliveries
"""
_RENEW = "UPDATE jobs SET lease = ? WHERE id = ? AND owner = ?"
_DONE = "DELETE FROM jobs WHERE id = ?"
_AGAIN = (
    "UPDATE jobs SET body = ?, due = ?, lease = NULL, owner = NULL, deliveries = 0 WHERE id = ? AND owner = ?"
)
_BACK = "UPDATE jobs SET due = max(due, ?), lease = NULL, owner = NULL WHERE id = ? AND owner = ?"
_FIRST = "(SELECT due FROM jobs WHERE lease IS NULL AND priority = {} ORDER BY due LIMIT 1)"
_NEXT = f"""
SELECT min(at) FROM (SELECT min(lease) AS at FROM jobs WHERE lease IS NOT NULL
  {"".join(f"UNION ALL SELECT {_FIRST.format(level)} " for level in _LEVELS)})
"""  # noqa: S608 - of constants


@dataclass(frozen=True, slots=True)
class Back:
    """The job was not ended: as it was, due after `delay` seconds."""

    delay: float


Outcome = Again | Back | None
"""None: the job has ended."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What a step took, in the order to run it, and what it learned.

    `next_due` is when there may be more (microseconds of the epoch), None when nothing is queued or `room`
    was filled. `lost` are the jobs whose lease had passed to another before it was renewed.
    """

    jobs: Sequence[tuple[int, Delivery]]
    next_due: int | None
    lost: Sequence[int]


def insert(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """A job that waits already stays as it is; one that runs is queued anew, for it may be ending."""
    connection.executemany(_INSERT, rows)


def step(
    connection: sqlite3.Connection,
    *,
    owner: int,
    lease: float,
    ended: Mapping[int, Outcome],
    renewed: Iterable[int],
    room: int,
) -> Taken:
    """End, renew and take jobs: `room` of them at most, for `lease` seconds, for the consumer `owner`."""
    now = now_us()
    until = now + int(lease * 1e6)
    _end(connection, owner, ended, now)
    lost = [job for job in renewed if not connection.execute(_RENEW, (until, job, owner)).rowcount]
    if room <= 0:
        return Taken((), None, lost)
    connection.execute(_EXPIRE, (now,))
    jobs: list[tuple[int, Delivery]] = []
    for level in _LEVELS:
        rows = connection.execute(_TAKE, (until, owner, level, now, room - len(jobs))).fetchall()
        # RETURNING keeps no order.
        rows.sort()
        jobs += [(key, Delivery(job_id, body, count > 1)) for _, key, job_id, body, count in rows]
        if len(jobs) >= room:
            return Taken(jobs, None, lost)
    return Taken(jobs, next_due(connection), lost)


def _end(connection: sqlite3.Connection, owner: int, ended: Mapping[int, Outcome], now: int) -> None:
    # What is done is done, also by a consumer that has lost the job's lease meanwhile.
    connection.executemany(_DONE, [(job,) for job, outcome in ended.items() if outcome is None])
    for job, outcome in ended.items():
        match outcome:
            case Again():
                due = now + int(outcome.delay * 1e6)
                connection.execute(_AGAIN, (outcome.body, due, job, owner))
            case Back():
                connection.execute(
                    _BACK, (now + int(outcome.delay * 1e6) if outcome.delay else 0, job, owner)
                )


def next_due(connection: sqlite3.Connection) -> int | None:
    """When the next job falls due or the next lease ends, microseconds of the epoch; None for neither."""
    found: int | None = connection.execute(_NEXT).fetchone()[0]
    return found


def changes(connection: sqlite3.Connection) -> int:
    """A number that differs once another connection has committed."""
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version


def stats(connection: sqlite3.Connection) -> QueueStats:
    counts = [connection.execute("SELECT count(*) FROM jobs").fetchone()[0]]
    counts += [
        connection.execute(
            "SELECT count(*) FROM jobs WHERE lease IS NULL AND priority = ? AND due > ?", (level, now_us())
        ).fetchone()[0]
        for level in _LEVELS
    ]
    delayed = sum(counts[1:])
    return QueueStats(waiting=max(0, counts[0] - delayed), delayed=delayed)
