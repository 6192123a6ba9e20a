"""`/v1/admin/jobs`. Every change leaves a line in the log once it is durable; its context says who asked."""

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from observability import get_logger
from service.db.jobs import admin, control, presence
from service.db.jobs.admin import JobFilter
from service.db.jobs.record import JobRecord
from service.db.session import UnitOfWork
from service.features.jobs.guard import jobs_admin
from service.features.jobs.schemas import (
    CleanRequest,
    CountsView,
    CountView,
    DomainCountsView,
    JobQuery,
    JobSummary,
    JobView,
    PauseRequest,
    PauseView,
    PressureView,
    ResumeRequest,
    RetryRequest,
    Sort,
    StatsView,
    WorkerView,
)
from service.http.dependencies import CurrentContainer, CurrentUnit
from service.http.envelope import Success, SuccessList, failures, success, success_list
from service.http.pagination import Page
from service.http.rate_limit import limited

log = get_logger(__name__)

PREFIX = "/v1/admin/jobs"
_RATE = "300/minute"
# Keys are made in the order of creation, and have an index.
_SORTS = {"createdAt": JobRecord.id, "dueAt": JobRecord.due_at}

router = APIRouter(prefix=PREFIX, tags=["jobs"], dependencies=[Depends(jobs_admin)], responses=failures(401))


@router.get("", responses=failures(422, 503))
@limited(_RATE)
async def list_jobs(
    unit: CurrentUnit,
    page: Annotated[Page, Depends()],
    wanted: Annotated[JobQuery, Depends()],
    sort: Annotated[Sort, Query(description="A leading minus means descending")] = "-createdAt",
) -> SuccessList[JobSummary]:
    """A page of jobs."""
    active = await admin.running(unit)
    keyset = page.keyset(sort, _SORTS, JobRecord.id)
    statement = keyset.apply(admin.selected(JobFilter(wanted.status, wanted.name, wanted.since), active))
    found = keyset.page(list(await unit.session.scalars(statement)))
    now, ids = datetime.now(UTC), set(active)
    return success_list(found, [JobSummary.of(row, admin.status_of(row, ids, now)) for row in found.items])


@router.get("/stats", responses=failures(503))
@limited(_RATE)
async def stats(unit: CurrentUnit, container: CurrentContainer) -> Success[StatsView]:
    """Jobs by status and domain, pauses, workers, and how far backpressure is from its limits."""
    counts = await admin.stats(unit)
    total: Counter[str] = Counter()
    for found in counts.values():
        total.update(found)
    pressure = container.pressure
    assert pressure is not None  # noqa: S101 - every API process has one, and the routes are nowhere else
    reading = await pressure.measure()
    limits = container.settings.queue
    return success(
        StatsView(
            total=CountsView.model_validate(total),
            domains=[
                DomainCountsView.model_validate({"domain": name} | found) for name, found in counts.items()
            ],
            pauses=[_pause_view(row) for row in await control.pauses(unit)],
            workers=[
                WorkerView(
                    name=worker.name,
                    concurrency=worker.concurrency,
                    running=len(worker.running),
                    rate=worker.rate,
                    started_at=worker.started_at,
                    heartbeat_at=worker.heartbeat_at,
                )
                for worker in await presence.workers(unit)
            ],
            pressure=PressureView(
                depth=reading.depth,
                max_depth=limits.max_depth,
                oldest_seconds=reading.age,
                max_age_seconds=limits.max_age_seconds,
                saturation=reading.capacity.saturation,
                drain_rate=reading.capacity.rate,
                refusing=pressure.refusing,
            ),
        )
    )


@router.post("/retry", responses=failures(413, 422, 503))
@limited(_RATE)
async def retry_dead(body: RetryRequest, unit: CurrentUnit) -> Success[CountView]:
    """Retry dead letters, all or those of a name. What was no job envelope stays."""
    count = await admin.retry_dead(unit, body.name)
    unit.after_commit(lambda: log.info("jobs.retried", job=body.name, jobs=count))
    return success(CountView(jobs=count), "Retried")


@router.post("/pause", responses=failures(413, 422, 503))
@limited(_RATE)
async def pause(unit: CurrentUnit, body: PauseRequest | None = None) -> Success[list[PauseView]]:
    """Stop working on everything, or on a domain; what runs is finished, and new jobs are still taken.

    It holds until it is resumed, whatever restarts meanwhile. The answer has all pauses in force.
    """
    wanted = body or PauseRequest()
    await control.pause(unit, wanted.domain or control.EVERYTHING, wanted.reason)
    unit.after_commit(lambda: log.info("queue.paused", domain=wanted.domain, reason=wanted.reason))
    return success([_pause_view(row) for row in await control.pauses(unit)], "Paused")


@router.post("/resume", responses=failures(413, 422, 503))
@limited(_RATE)
async def resume(unit: CurrentUnit, body: ResumeRequest | None = None) -> Success[list[PauseView]]:
    """Lift the pause of the whole queue, or that of a domain. The answer has those that are left."""
    domain = body.domain if body is not None else None
    found = await control.resume(unit, domain or control.EVERYTHING)
    if found:
        unit.after_commit(lambda: log.info("queue.resumed", domain=domain))
    message = "Resumed" if found else "It was not paused"
    return success([_pause_view(row) for row in await control.pauses(unit)], message)


@router.post("/clean", responses=failures(413, 422, 503))
@limited(_RATE)
async def clean(body: CleanRequest, unit: CurrentUnit, container: CurrentContainer) -> Success[CountView]:
    """Drop ended jobs of a status, up to 100,000 at once. The youngest stay for a while as `removed`."""
    keep = container.settings.outbox.keep_seconds
    count = await admin.clean(unit, body.status, body.grace_seconds, keep)
    unit.after_commit(
        lambda: log.info("jobs.cleaned", status=body.status, graceSeconds=body.grace_seconds, jobs=count)
    )
    return success(CountView(jobs=count), "Cleaned")


@router.get("/{job_id}", responses=failures(404, 422, 503))
@limited(_RATE)
async def get(job_id: UUID, unit: CurrentUnit) -> Success[JobView]:
    """One job with its payload and history."""
    return success(await _view(unit, await admin.get(unit, job_id)))


@router.post("/{job_id}/retry", responses=failures(404, 409, 422, 503))
@limited(_RATE)
async def retry(job_id: UUID, unit: CurrentUnit) -> Success[JobView]:
    """Retry a dead or failed job at once, with all its attempts; 409 for any other."""
    record = await admin.retry(unit, job_id)
    unit.after_commit(lambda: log.info("job.retried_by_hand", job=record.name, jobId=str(job_id)))
    return success(await _view(unit, record), "Retried")


@router.delete("/{job_id}", responses=failures(404, 409, 422, 503))
@limited(_RATE)
async def remove(job_id: UUID, unit: CurrentUnit) -> Success[JobView]:
    """Take a job out, a dead letter among them; 409 if it has completed, or runs and does not end in 2 s."""
    record = await admin.remove(unit, job_id)
    unit.after_commit(lambda: log.info("job.removed", job=record.name, jobId=str(job_id)))
    return success(await _view(unit, record), "Removed")


async def _view(unit: UnitOfWork, record: JobRecord) -> JobView:
    active = set(await admin.running(unit))
    return JobView.of(record, admin.status_of(record, active, datetime.now(UTC)))


def _pause_view(row: control.QueuePause) -> PauseView:
    domain = None if row.scope == control.EVERYTHING else row.scope
    return PauseView(domain=domain, reason=row.reason, paused_at=row.paused_at)
