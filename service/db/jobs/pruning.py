"""Deleting ended jobs that nobody needs any more, in bounded batches and by one process at a time.

The index on outcome, name and finished_at serves all of it: the names of an outcome are skipped through, the
jobs of a name are looked at from the oldest on, and where its newest begin is found from the other side.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import func, select, text

from service.db.jobs.record import Outcome
from service.db.session import Database, UnitOfWork
from service.settings import OutboxSettings

BATCH = 1000
"""Jobs looked at in a transaction."""

_LOCK = 0x6A6F6273
"""Key of the advisory lock: "jobs"."""

_NAMES = text("""
WITH RECURSIVE kind AS (
  (SELECT name FROM job WHERE outcome = :outcome AND name IS NOT NULL ORDER BY name LIMIT 1)
  UNION ALL
  SELECT (SELECT name FROM job WHERE outcome = :outcome AND name > kind.name ORDER BY name LIMIT 1)
    FROM kind WHERE kind.name IS NOT NULL
)
SELECT name FROM kind WHERE name IS NOT NULL
""")

_PRUNE = """
WITH looked AS MATERIALIZED (
  SELECT id, finished_at, coalesce((options ->> :option)::int, :otherwise) AS kept
    FROM job
   WHERE outcome = :outcome AND {named} AND (finished_at, id) > (:after, :after_id)
     AND finished_at < now() - make_interval(secs => :age)
   ORDER BY finished_at, id LIMIT :batch
), newest AS MATERIALIZED (
  SELECT choice.kept, first_over.finished_at, first_over.id
    FROM (SELECT DISTINCT kept FROM looked) AS choice, LATERAL (
      SELECT finished_at, id FROM job
       WHERE outcome = :outcome AND {named}
       ORDER BY finished_at DESC, id DESC OFFSET choice.kept LIMIT 1
    ) AS first_over
), gone AS (
  -- The outcome is asked again of a job that somebody changes right now, such as by a retry.
  DELETE FROM job USING looked JOIN newest USING (kept)
   WHERE job.id = looked.id AND job.outcome = :outcome
     AND (looked.finished_at, looked.id) <= (newest.finished_at, newest.id)
  RETURNING 1
)
SELECT (SELECT count(*) FROM looked) AS looked, (SELECT count(*) FROM gone) AS gone, finished_at, id
  FROM looked ORDER BY finished_at DESC, id DESC LIMIT 1
"""
_NAMED, _NAMELESS = (text(_PRUNE.format(named=named)) for named in ("name = :name", "name IS NULL"))


@dataclass(frozen=True, slots=True)
class _Rule:
    """Of the jobs that ended so, the newest of each name stay, and all for `age` seconds.

    How many the newest are says the job's `option`, or else `otherwise`.
    """

    outcome: Outcome
    option: str
    otherwise: int
    age: float


class _Place(NamedTuple):
    """The last job that was looked at."""

    finished_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    id: int = 0


class Pruning:
    """Any number of processes may have one; while one prunes, the others leave it at that."""

    def __init__(self, settings: OutboxSettings, database: Database, *, batch: int = BATCH) -> None:
        keep = float(settings.keep_seconds)
        self._rules = (
            _Rule(Outcome.COMPLETED, "keepCompleted", 100, keep),
            _Rule(Outcome.FAILED, "keepFailed", 50, 0),
            _Rule(Outcome.REMOVED, "", 0, keep),
        )
        self._database = database
        self._batch = batch

    async def once(self) -> int:
        """Delete all that may go; gives how many jobs did. Raises UnavailableError."""
        gone = 0
        for rule in self._rules:
            names: list[str | None] = [None, *await self._names(rule.outcome)]
            for name in names:
                found = await self._prune(rule, name)
                if found is None:
                    return gone
                gone += found
        return gone

    async def _names(self, outcome: Outcome) -> list[str]:
        async with self._database.unit() as unit:
            return list(await unit.session.scalars(_NAMES, {"outcome": outcome}))

    async def _prune(self, rule: _Rule, name: str | None) -> int | None:
        """None while another process prunes. A batch is a transaction, so that no lock is held for long."""
        gone, place = 0, _Place()
        while True:
            async with self._database.unit() as unit:
                if not await alone(unit):
                    return None
                asked = {
                    "outcome": rule.outcome,
                    "option": rule.option,
                    "otherwise": rule.otherwise,
                    "age": rule.age,
                    "batch": self._batch,
                    "after": place.finished_at,
                    "after_id": place.id,
                }
                statement, named = (_NAMELESS, {}) if name is None else (_NAMED, {"name": name})
                found = (await unit.session.execute(statement, asked | named)).one_or_none()
            if found is None:
                return gone
            gone += int(found.gone)
            if found.looked < self._batch:
                return gone
            place = _Place(found.finished_at, found.id)


async def alone(unit: UnitOfWork) -> bool:
    """Whether no other process prunes; if so, none will until the end of this transaction."""
    return bool(await unit.session.scalar(select(func.pg_try_advisory_xact_lock(_LOCK))))
