"""What becomes of a delivery, whatever the engine."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from observability import JobTelemetry, Telemetry, TelemetryConfig
from service.errors import UnavailableError
from service.infra.queues import runner as module
from service.infra.queues.interface import (
    Again,
    Delivery,
    Job,
    JobOptions,
    MalformedJobError,
    PermanentJobError,
)
from service.infra.queues.runner import JobRunner, backoff


@dataclass
class Bench:
    """A runner whose job raises what is set, and the dead letters it made."""

    telemetry: Telemetry
    raises: list[BaseException | None] = field(default_factory=list)
    grave_raises: BaseException | None = None
    buried: list[tuple[Delivery, Job | None, BaseException]] = field(default_factory=list)
    tried: list[tuple[Job, BaseException]] = field(default_factory=list)
    interrupted_times: int = 0
    known: int | None = None
    running: int = 0
    most: int = 0

    async def perform(self, job: Job) -> None:
        error = self.raises.pop(0) if self.raises else None
        if error is not None:
            raise error

    async def bury(self, delivery: Delivery, job: Job | None, error: BaseException) -> None:
        if self.grave_raises is not None:
            raise self.grave_raises
        self.buried.append((delivery, job, error))

    async def retried(self, job: Job, error: BaseException, due_at: datetime) -> None:
        if self.grave_raises is not None:
            raise self.grave_raises
        self.tried.append((job, error))

    async def interruptions(self, job: Job) -> int:
        return self.interrupted_times if self.known is None else self.known

    async def interrupted(self, job: Job) -> int:
        self.interrupted_times += 1
        return self.interrupted_times

    async def overlap(self, _: Job) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1

    async def run(self, body: bytes, *, redelivered: bool = False) -> Again | None:
        jobs = JobTelemetry(self.telemetry, system="test", queue="q")
        runner = JobRunner(self.perform, self, jobs, interruptions=3)
        return await runner(Delivery("id", body, redelivered))

    def count(self, name: str, job: str = "test.job.v1") -> float:
        return self.telemetry.registry.get_sample_value(f"app_jobs_{name}_total", {"job_name": job}) or 0


@pytest.fixture
async def bench(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bench]:
    log = tmp_path_factory.mktemp("log") / "log.jsonl"
    telemetry = Telemetry.start(TelemetryConfig(service_name="t", log_sink="file", log_file=log))
    yield Bench(telemetry)
    await telemetry.close()


def job(**changes: object) -> Job:
    made = Job(id=uuid4(), name="test.job.v1", payload={}, due_at=datetime.now(UTC))
    return made.model_copy(update=changes)


async def test_done(bench: Bench) -> None:
    assert await bench.run(job().encode()) is None
    assert (bench.count("done"), bench.count("failed")) == (1, 0)


async def test_a_failure_comes_again_as_the_next_attempt(bench: Bench) -> None:
    bench.raises = [ValueError("no")]
    first = job(meta={"traceparent": "kept"})
    again = await bench.run(first.encode())
    assert again is not None
    following = Job.decode(again.body)
    assert following.attempt == 2
    assert (following.id, following.meta, following.payload) == (first.id, first.meta, first.payload)
    assert 1.0 <= again.delay <= 2.0
    assert (following.due_at - datetime.now(UTC)).total_seconds() == pytest.approx(again.delay, abs=0.5)
    assert (bench.count("retried"), bench.count("dead")) == (1, 0)


async def test_the_last_failure_is_a_dead_letter(bench: Bench) -> None:
    bench.raises = [ValueError("no")]
    assert await bench.run(job(attempt=3).encode()) is None
    [(_, buried, error)] = bench.buried
    assert buried is not None
    assert buried.attempt == 3
    assert str(error) == "no"
    assert (bench.count("retried"), bench.count("dead")) == (0, 1)


async def test_a_permanent_failure_is_a_dead_letter_at_once(bench: Bench) -> None:
    bench.raises = [PermanentJobError("never")]
    assert await bench.run(job().encode()) is None
    assert len(bench.buried) == 1


async def test_each_failed_attempt_is_written_down(bench: Bench) -> None:
    bench.raises = [ValueError("first")]
    await bench.run(job().encode())
    assert [(tried.attempt, str(error)) for tried, error in bench.tried] == [(1, "first")]


async def test_an_attempt_that_cannot_be_written_down_is_none(bench: Bench) -> None:
    bench.raises, bench.grave_raises = [ValueError("no")], UnavailableError()
    again = await bench.run(job().encode())
    assert again is not None
    assert Job.decode(again.body).attempt == 1


async def test_a_job_that_outlives_its_workers_is_taken_for_their_end(bench: Bench) -> None:
    body = job().encode()
    for _ in range(3):
        assert await bench.run(body, redelivered=True) is None
    assert (bench.buried, bench.count("done")) == ([], 3)
    assert await bench.run(body, redelivered=True) is None
    [(_, _, error)] = bench.buried
    assert "4 workers took it and did not end it" in str(error)
    assert (bench.count("done"), bench.count("interrupted")) == (3, 4)


@pytest.mark.parametrize(("interrupted", "together"), [(0, 5), (2, 1)])
async def test_suspects_run_one_after_another(bench: Bench, interrupted: int, together: int) -> None:
    bench.known = interrupted
    jobs = JobTelemetry(bench.telemetry, system="test", queue="q")
    runner = JobRunner(bench.overlap, bench, jobs, interruptions=100)
    bodies = [job().encode() for _ in range(5)]
    await asyncio.gather(*(runner(Delivery("id", body, redelivered=True)) for body in bodies))
    assert (bench.most, bench.interrupted_times) == (together, 5)


async def test_an_outage_is_no_attempt(bench: Bench) -> None:
    bench.raises = [UnavailableError()]
    again = await bench.run(job(attempt=3).encode())
    assert again is not None
    assert Job.decode(again.body).attempt == 3
    assert bench.buried == []


async def test_a_dead_letter_that_cannot_be_stored_stays_in_the_queue(bench: Bench) -> None:
    bench.raises, bench.grave_raises = [ValueError("no")], UnavailableError()
    again = await bench.run(job(attempt=3).encode())
    assert again is not None
    assert Job.decode(again.body).attempt == 3
    assert await bench.run(b"junk") == Again(b"junk", module.OUTAGE_DELAY)
    assert bench.count("dead") == 0


@pytest.mark.parametrize("body", [b"", b"junk", b"{}", b"\xff", b'{"id":"1"}'])
async def test_a_malformed_message_is_a_dead_letter_at_once(bench: Bench, body: bytes) -> None:
    assert await bench.run(body) is None
    [(delivery, envelope, error)] = bench.buried
    assert (delivery.body, envelope) == (body, None)
    assert isinstance(error, MalformedJobError)
    assert bench.count("dead", module.MALFORMED) == 1


async def test_a_job_over_its_time_has_failed(bench: Bench) -> None:
    async def forever(_: Job) -> None:
        await asyncio.sleep(60)

    jobs = JobTelemetry(bench.telemetry, system="test", queue="q")
    slow = job(options=JobOptions(timeout_seconds=0.01))
    again = await JobRunner(forever, bench, jobs)(Delivery("id", slow.encode()))
    assert again is not None
    assert Job.decode(again.body).attempt == 2


async def test_a_cancelled_job_is_not_counted_as_failed(bench: Bench) -> None:
    bench.raises = [asyncio.CancelledError()]
    with pytest.raises(asyncio.CancelledError):
        await bench.run(job().encode())
    assert (bench.count("failed"), bench.buried) == (0, [])


def test_the_backoff_doubles_and_varies() -> None:
    for attempt, longest in ((1, 2.0), (2, 4.0), (5, 32.0)):
        delays = {backoff(job(attempt=attempt)) for _ in range(50)}
        assert longest / 2 <= min(delays) <= max(delays) <= longest
        assert len(delays) > 1
    fixed = job(attempt=4, options=JobOptions(backoff="fixed", backoff_seconds=7))
    assert backoff(fixed) == 7


def test_the_envelope_survives_the_way() -> None:
    sent = job(payload={"a": [1, "ü"]}, meta={"traceparent": "x"}, attempt=2)
    assert Job.decode(sent.encode()) == sent
