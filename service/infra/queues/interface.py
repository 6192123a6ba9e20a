"""What a queue engine does, and the envelope that travels through all of them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, Literal, Protocol, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

P = TypeVar("P", bound=BaseModel)


class MalformedJobError(Exception):
    """A message that is not an envelope. No retry can help."""


class PermanentJobError(Exception):
    """A job that can never succeed (unknown name, wrong payload, illegal state): a dead letter at once."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True)


class JobOptions(_Frozen):
    """How often and how patiently a job is tried. Times are seconds."""

    attempts: int = Field(3, ge=1, le=100)
    backoff: Literal["fixed", "exponential"] = "exponential"
    backoff_seconds: float = Field(2.0, ge=0, le=3600)
    timeout_seconds: float = Field(30.0, gt=0, le=86_400)


class Job(_Frozen):
    """The envelope. `meta` carries the trace context, the correlation ID and who asked.

    `attempt` counts from 1. `enqueued_at` is when the job became due: on a retry the end of its backoff.
    """

    id: UUID
    name: str = Field(min_length=1, max_length=100)
    payload: dict[str, Any]
    attempt: int = Field(1, ge=1)
    options: JobOptions = JobOptions()
    meta: dict[str, str] = Field(default_factory=dict)
    enqueued_at: datetime

    def encode(self) -> bytes:
        return self.model_dump_json(by_alias=True).encode()

    @classmethod
    def decode(cls, body: bytes) -> "Job":
        """The envelope in a message. Raises MalformedJobError."""
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            faults = "; ".join(f"{'.'.join(map(str, f['loc']))}: {f['msg']}" for f in error.errors()[:5])
            raise MalformedJobError(f"not a job envelope: {faults}") from None


@dataclass(frozen=True)
class JobKind(Generic[P]):
    """A job that a feature owns: its name `domain.action.vN`, the model of its payload, how it is tried."""

    name: str
    payload: type[P]
    options: JobOptions = field(default_factory=JobOptions)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as an engine hands it over, at least once."""

    id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Again:
    """Put the job back: this body, due after `delay` seconds."""

    body: bytes
    delay: float


Runner = Callable[[Delivery], Awaitable[Again | None]]
"""Runs one delivery. None acknowledges it; it raises nothing but the cancellation of its task."""


@dataclass(frozen=True, slots=True)
class QueueStats:
    """Jobs in the queue, running ones included, and how long ago the oldest became due (seconds)."""

    depth: int
    oldest_age: float


class JobQueue(Protocol):
    """A queue engine. Faults of the broker are `UnavailableError`."""

    system: str
    name: str

    async def publish(self, job: Job) -> None:
        """Hand the job over; returns once the broker has it. One that is queued already stays as it is."""

    async def consume(self, run: Runner, *, concurrency: int) -> None:
        """Run deliveries, riding out faults of the broker, until `stop`."""

    async def stop(self, grace: float) -> None:
        """Fetch no more; give running jobs `grace` seconds, then hand them back to the queue."""

    async def stats(self) -> QueueStats:
        """A look at the queue."""

    async def ping(self) -> None:
        """One round trip."""
