"""Jobs written in the transaction that wants them done: either both are there, or neither."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4, uuid5

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Interval,
    String,
    Uuid,
    bindparam,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import defer

from observability import JobTelemetry, current
from service.db.jobs.record import JobRecord, Outcome
from service.db.session import UnitOfWork
from service.infra.queues.interface import JobKind, JobOptions, P

CHANNEL = "yardstick_outbox"
"""Notified by every transaction that enqueued something, at its commit."""

Admission = Callable[[str, int], None]
"""Raises OverloadedError when so many jobs of this name are not to be enqueued now."""

_MOST = 1000

# Texts that are the same for any number of rows: compiled once here, and prepared once by the server.
_ADD = text(
    "WITH added AS ("
    "INSERT INTO job (id, job_id, name, payload, options, meta, due_at)"
    " SELECT id, job_id, :name, payload, :options, meta, now() + :delay"
    " FROM unnest(:ids, :job_ids, :payloads, :metas) AS new (id, job_id, payload, meta)"
    " ON CONFLICT (job_id) DO NOTHING)"
    " SELECT pg_notify(:channel, '')"
).bindparams(
    bindparam("ids", type_=ARRAY(BigInteger())),
    bindparam("job_ids", type_=ARRAY(Uuid())),
    bindparam("name", type_=String()),
    bindparam("payloads", type_=ARRAY(JSONB())),
    bindparam("options", type_=JSONB()),
    bindparam("metas", type_=ARRAY(JSONB())),
    bindparam("delay", type_=Interval()),
    bindparam("channel", value=CHANNEL, type_=String()),
)
_PUBLISHED = text("UPDATE job SET published_at = clock_timestamp() WHERE id = ANY(:ids)").bindparams(
    bindparam("ids", type_=ARRAY(BigInteger()))
)
_KEYS = UUID("6b1f4c1e-3a0e-4f5a-9a55-0c2f6a6f7d10")


def job_id_of(key: str) -> UUID:
    """The job ID of a business key: whoever enqueues with the same key gets the same job."""
    return uuid5(_KEYS, key)


class Outbox:
    """Where operations enqueue."""

    def __init__(self, telemetry: JobTelemetry, *, source: str, admit: Admission | None = None) -> None:
        """`admit` may refuse new jobs. Processes that enqueue in the course of jobs have none: they drain."""
        self._telemetry = telemetry
        self._source = source
        self._admit = admit

    async def add(
        self,
        unit: UnitOfWork,
        kind: JobKind[P],
        payload: P,
        *,
        delay: float = 0,
        job_id: UUID | None = None,
        options: JobOptions | None = None,
    ) -> UUID:
        """Enqueue a job with this unit of work; gives its ID.

        Args:
            delay: seconds until it is due.
            job_id: for de-duplication (`job_id_of`). Of one that is known already nothing is enqueued.
            options: in place of the kind's.

        Raises:
            OverloadedError: too much work is waiting.
        """
        [made] = await self._add(
            unit, kind, [payload], delay=delay, job_ids=[job_id or uuid4()], options=options
        )
        return made

    async def add_bulk(
        self,
        unit: UnitOfWork,
        kind: JobKind[P],
        payloads: Iterable[P],
        *,
        delay: float = 0,
        options: JobOptions | None = None,
    ) -> list[UUID]:
        """Enqueue a job for each payload, with one statement; gives their IDs in the same order."""
        payloads = list(payloads)
        job_ids = [uuid4() for _ in payloads]
        return await self._add(unit, kind, payloads, delay=delay, job_ids=job_ids, options=options)

    async def _add(
        self,
        unit: UnitOfWork,
        kind: JobKind[P],
        payloads: Sequence[P],
        *,
        delay: float,
        job_ids: list[UUID],
        options: JobOptions | None,
    ) -> list[UUID]:
        if not 0 <= delay <= 10 * 365 * 86_400:
            raise ValueError(f"a job's delay is 0 to ten years in seconds, not {delay}")
        if not payloads:
            return []
        if self._admit is not None:
            self._admit(kind.name, len(payloads))
        # JSON's own checks, such as against NaN, belong to whoever enqueues.
        validated = [kind.payload.model_validate(payload) for payload in payloads]
        tried = (options or kind.options).model_dump(mode="json", by_alias=True)
        with ExitStack() as spans:
            metas = [
                self._meta(job_id, spans.enter_context(self._telemetry.outbox(kind.name, str(job_id))))
                for job_id in job_ids
            ]
            await unit.session.flush()
            keys = await unit.keys()
            for start in range(0, len(job_ids), _MOST):
                part = slice(start, start + _MOST)
                values = {
                    "ids": [keys.next() for _ in job_ids[part]],
                    "job_ids": job_ids[part],
                    "name": kind.name,
                    "payloads": [one.model_dump(mode="json", by_alias=True) for one in validated[part]],
                    "options": tried,
                    "metas": metas[part],
                    "delay": timedelta(seconds=delay),
                }
                await unit.session.execute(_ADD, values)
        return job_ids

    def _meta(self, job_id: UUID, carrier: dict[str, str]) -> dict[str, str]:
        caller = current()
        return {
            "correlationId": caller.request_id or str(job_id),
            "userId": caller.user_id or "system",
            "tenant": caller.tenant,
            "source": self._source,
            "timestamp": datetime.now(UTC).isoformat(),
            **carrier,
        }


async def claim_pending(
    unit: UnitOfWork, limit: int, ahead: float, *, held: frozenset[str] = frozenset()
) -> list[JobRecord]:
    """The oldest that no broker has and no other relay holds, due within `ahead` seconds; locked.

    Jobs of the domains `held` stay.
    """
    pending = (
        select(JobRecord)
        .options(*(defer(column, raiseload=True) for column in (JobRecord.body, JobRecord.history)))
        .where(
            JobRecord.published_at.is_(None),
            JobRecord.outcome.is_(None),
            JobRecord.due_at <= func.now() + timedelta(seconds=ahead),
        )
        .order_by(JobRecord.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if held:
        pending = pending.where(func.split_part(JobRecord.name, ".", 1).not_in(held))
    return list(await unit.session.scalars(pending))


async def database_time(unit: UnitOfWork) -> datetime:
    """Now, by the clock that rows are dated with."""
    found: datetime | None = await unit.session.scalar(select(func.clock_timestamp()))
    assert found is not None  # noqa: S101 - it has one row
    return found


async def mark_published(unit: UnitOfWork, records: Iterable[JobRecord]) -> None:
    await unit.session.execute(_PUBLISHED, {"ids": [record.id for record in records]})


async def mark_refused(unit: UnitOfWork, record: JobRecord, error: Exception) -> None:
    """A job that the broker does not take is a dead letter."""
    entry = {"at": datetime.now(UTC).isoformat(), "error": f"{type(error).__name__}: {error}"[:4000]}
    await unit.session.execute(
        update(JobRecord)
        .where(JobRecord.id == record.id)
        .values(
            outcome=Outcome.DEAD,
            finished_at=func.now(),
            history=JobRecord.history + literal([entry], JSONB),
        )
        .execution_options(synchronize_session=False)
    )
