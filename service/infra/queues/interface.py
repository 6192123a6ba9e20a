"""What a queue engine does, and the envelope that travels through all of them."""

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, Literal, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from service.infra.queues.domains import DOMAINS, domain_of

P = TypeVar("P", bound=BaseModel)

Priority = Literal["critical", "high", "normal", "low", "bulk"]
PRIORITIES: tuple[Priority, ...] = ("critical", "high", "normal", "low", "bulk")
"""First to last."""

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+\.v[1-9][0-9]*")
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_MAYBE_NUL = b"\\u0000"
"""Looked for first: the expression looks at each byte, and costs more than all the rest of decoding."""


class JobError(Exception):
    """What can be wrong with a job, apart from an outage, which is `UnavailableError`."""


class MalformedJobError(JobError):
    """A message that is not an envelope. No retry can help."""


class PermanentJobError(JobError):
    """A job that can never succeed (unknown name, wrong payload, illegal state): a dead letter at once."""


class RefusedJobError(JobError):
    """A job that the broker does not take, however often it is offered: unroutable, too large."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class JobOptions(_Frozen):
    """How often, how patiently and how urgently a job is tried. Times are seconds.

    `keep_completed` and `keep_failed` are how many finished jobs of this name stay to be looked at.
    """

    attempts: int = Field(3, ge=1, le=100)
    backoff: Literal["fixed", "exponential"] = "exponential"
    backoff_seconds: float = Field(2.0, ge=0, le=3600)
    timeout_seconds: float = Field(30.0, gt=0, le=86_400)
    priority: Priority = "normal"
    keep_completed: int = Field(100, ge=0, le=100_000)
    keep_failed: int = Field(50, ge=0, le=100_000)


class Job(_Frozen):
    """The envelope. `meta` carries the trace context, the correlation ID and who asked.

    `attempt` counts from 1. `due_at` is when the job is to run first: on a retry the end of its backoff.
    """

    id: UUID
    name: str = Field(min_length=1, max_length=100)
    payload: dict[str, Any]
    attempt: int = Field(1, ge=1)
    options: JobOptions = JobOptions()
    meta: dict[str, str] = Field(default_factory=dict)
    due_at: datetime

    @property
    def domain(self) -> str:
        return domain_of(self.name)

    def encode(self) -> bytes:
        return self.model_dump_json(by_alias=True).encode()

    @classmethod
    def decode(cls, body: bytes) -> "Job":
        """The envelope in a message. Raises MalformedJobError."""
        if _MAYBE_NUL in body and _NUL.search(body):
            raise MalformedJobError("not a job envelope: it has a NUL character, which no database can keep")
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors()[:5])
            raise MalformedJobError(f"not a job envelope: {faults}") from None


class JobKind(Generic[P]):
    """A job that a feature owns: its name `domain.action.vN`, the model of its payload, how it is tried.

    Without options it is tried as its domain says. Raises ValueError for a name that is none.
    """

    def __init__(self, name: str, payload: type[P], options: JobOptions | None = None) -> None:
        domain = DOMAINS.get(domain_of(name))
        if not _NAME.fullmatch(name) or domain is None or len(name) > 100:
            raise ValueError(
                f"{name!r} is no name of a job: it takes domain.action.vN, such as"
                f" transaction.settlement.v1, with a domain of {', '.join(DOMAINS)}"
            )
        self.name, self.payload = name, payload
        self.options = options or JobOptions(
            attempts=domain.attempts, backoff="fixed", backoff_seconds=domain.delay_seconds
        )


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as an engine hands it over, at least once.

    `redelivered` says that an earlier worker took it and did not end it, as far as the engine knows.
    """

    id: str
    body: bytes
    redelivered: bool = False


@dataclass(frozen=True, slots=True)
class Again:
    """Put the job back: this body, due after `delay` seconds."""

    body: bytes
    delay: float


Runner = Callable[[Delivery], Awaitable[Again | None]]
"""Runs one delivery. None acknowledges it; it raises nothing but the cancellation of its task."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Jobs that the broker holds: due ones, running ones among them, and those that are not due yet."""

    waiting: int
    delayed: int


class JobQueue(Protocol):
    """A queue engine carries jobs, at least once, and knows nothing of what they do.

    What is true of a job stands in the database. Faults of the broker are `UnavailableError`.
    """

    system: str
    name: str

    async def publish(self, jobs: Sequence[Job]) -> list[JobError | None]:
        """Hand jobs over, in their order; returns once the broker has answered for each of them.

        None where it has the job, as durably as it keeps anything, else why it does not take it. A job that
        is queued already may stay as it is or be queued twice. One with a later `due_at` is delivered then.

        Raises:
            UnavailableError: what became of the jobs is not known.
        """

    async def consume(self, run: Runner, *, concurrency: int) -> None:
        """Run deliveries, the urgent first, riding out faults of the broker, until `stop`."""

    async def pause(self) -> None:
        """Fetch no more until `resume`; what runs is finished. Again: does nothing."""

    async def resume(self) -> None:
        """Fetch again."""

    async def stop(self, grace: float) -> None:
        """Fetch no more; give running jobs `grace` seconds, then hand them back to the queue."""

    async def stats(self) -> QueueStats:
        """A look at the queue."""

    async def ping(self) -> None:
        """One round trip."""

    async def close(self) -> None:
        """Let go of what the engine holds open."""
