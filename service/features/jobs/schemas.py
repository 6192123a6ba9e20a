"""What operators send and get. JSON is camelCase; times carry their zone; durations are seconds."""

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from service.db.jobs.admin import EndedStatus, JobStatus
from service.db.jobs.record import JobRecord
from service.infra.queues.domains import DOMAINS

Sort = Literal["createdAt", "-createdAt", "dueAt", "-dueAt"]
_NAME = r"^[a-z0-9_.]{1,100}$"


def _in_utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("is no time that can be stored") from None


def _known_domain(value: str) -> str:
    if value not in DOMAINS:
        raise ValueError(f"must be one of {', '.join(DOMAINS)}")
    return value


JobName = Annotated[str, Field(pattern=_NAME, examples=["transaction.settlement.v1"])]
Since = Annotated[AwareDatetime, AfterValidator(_in_utc)]
DomainName = Annotated[
    str, Field(max_length=50, json_schema_extra={"enum": list(DOMAINS)}), AfterValidator(_known_domain)
]


@dataclass(frozen=True, slots=True)
class JobQuery:
    """The filters of the list; as a dependency: `Annotated[JobQuery, Depends()]`."""

    status: JobStatus | None = None
    name: JobName | None = None
    since: Annotated[Since | None, Query(description="Created at this time or later")] = None


class _Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)


class _Sent(_Camel):
    model_config = ConfigDict(extra="forbid", strict=True)


class RetryRequest(_Sent):
    """Which dead letters: those of `name`, or `all`. One of the two."""

    name: JobName | None = None
    all: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.name is not None) == self.all:
            raise ValueError('takes either "name", or "all": true')
        return self


class PauseRequest(_Sent):
    """What to pause: a domain, or everything; and why, for whoever finds it paused."""

    domain: DomainName | None = None
    reason: Annotated[str, Field(max_length=200, pattern=r"^[^\u0000-\u001f\u007f]*$")] = ""


class ResumeRequest(_Sent):
    """What to resume: a domain, or the whole queue. Each has a pause of its own."""

    domain: DomainName | None = None


class CleanRequest(_Sent):
    """Jobs that ended with `status` at least `graceSeconds` ago."""

    status: EndedStatus
    grace_seconds: Annotated[float, Field(ge=0, le=315_360_000, allow_inf_nan=False)] = 0


class CountView(_Camel):
    """How many jobs it was done to."""

    jobs: int


class AttemptView(_Camel):
    """What went wrong, or what was done by hand."""

    at: datetime
    attempt: int | None = None
    error: str | None = None
    event: str | None = None


class JobSummary(_Camel):
    """A job in a list. `attempts` counts those that failed, `error` is the last one's.

    `name` is null for a message that was no job envelope.
    """

    id: UUID
    name: str | None
    status: JobStatus
    attempts: int
    interruptions: int
    error: str | None
    created_at: datetime
    due_at: datetime
    published_at: datetime | None
    finished_at: datetime | None

    @staticmethod
    def fields(record: JobRecord, status: JobStatus) -> dict[str, Any]:
        errors = [entry["error"] for entry in record.history if "error" in entry]
        return {
            "id": record.job_id,
            "name": record.name,
            "status": status,
            "attempts": record.attempts,
            "interruptions": record.interruptions,
            "error": errors[-1] if errors else None,
            "created_at": record.created_at,
            "due_at": record.due_at,
            "published_at": record.published_at,
            "finished_at": record.finished_at,
        }

    @classmethod
    def of(cls, record: JobRecord, status: JobStatus) -> Self:
        return cls(**cls.fields(record, status))


class BodyView(_Camel):
    """What was delivered in place of an envelope."""

    encoding: Literal["utf-8", "base64"]
    content: str

    @classmethod
    def of(cls, body: bytes) -> Self:
        try:
            return cls(encoding="utf-8", content=body.decode())
        except UnicodeDecodeError:
            return cls(encoding="base64", content=base64.b64encode(body).decode())


class JobView(JobSummary):
    """All of a job. `meta` has who asked and the trace; `body` is null but for a malformed message."""

    payload: dict[str, Any] | None
    options: dict[str, Any]
    meta: dict[str, str]
    history: list[AttemptView]
    body: BodyView | None

    @classmethod
    def of(cls, record: JobRecord, status: JobStatus) -> Self:
        return cls(
            **cls.fields(record, status),
            payload=record.payload,
            options=record.options,
            meta=record.meta,
            history=[AttemptView.model_validate(entry) for entry in record.history],
            body=None if record.body is None else BodyView.of(record.body),
        )


class CountsView(_Camel):
    """Jobs by where they are. `active` is as of the workers' last heartbeats."""

    waiting: int = 0
    active: int = 0
    delayed: int = 0
    completed: int = 0
    failed: int = 0
    dead: int = 0
    removed: int = 0


class DomainCountsView(CountsView):
    """Of one domain; `_malformed` are messages that were no job envelope."""

    domain: str


class PauseView(_Camel):
    """A pause in force; `domain` is null for the whole queue."""

    domain: str | None
    reason: str
    paused_at: datetime


class WorkerView(_Camel):
    """A worker. `rate` is the jobs that it got done a second, lately."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    concurrency: int
    running: int
    rate: float
    started_at: datetime
    heartbeat_at: datetime


class PressureView(_Camel):
    """What backpressure goes by, and whether this process refuses new work. A limit of 0 is none.

    `depth` counts due jobs that have not ended, `oldestSeconds` is how long the oldest has been due.
    """

    depth: int
    max_depth: int
    oldest_seconds: float
    max_age_seconds: float
    saturation: float
    drain_rate: float
    refusing: bool


class StatsView(_Camel):
    """Everything at one time."""

    total: CountsView
    domains: list[DomainCountsView]
    pauses: list[PauseView]
    workers: list[WorkerView]
    pressure: PressureView
