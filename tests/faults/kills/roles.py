"""What runs in the processes that are killed: the service's own, with a journal, traps and effects to count.

A role is `api-1`, `worker-2`, `relay-1` and so on. A journal holds a line for each delivery that was
taken up (`T`), each run of a job that began (`S`), and each delivery that was done with (`E`), written at
once, so that it survives its process. A trap is a file `<role>.<point>`: the process that gets to that point
kills itself there.
"""

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import text
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import app, worker
from service.container import Container, open_container
from service.db.jobs.effects import Effects, Handler, JobHandler
from service.db.jobs.record import JobRecord
from service.db.jobs.relay import Relay, RelayMetrics
from service.db.session import UnitOfWork
from service.features.transactions import jobs as transactions
from service.features.transactions.settlement import SettlementPayload
from service.infra.queues.interface import Again, Delivery, Job, JobError, JobKind, JobOptions
from service.infra.queues.runner import JobRunner
from service.process import run
from service.settings import Settings
from service.tasks import end

POINTS = {
    "api": ("answering",),
    "worker": ("running", "performed"),
    "relay": ("claimed", "published"),
}
"""Where a process of each kind can be trapped: with the transaction committed and no answer sent; in the
middle of an effect's transaction; with the effect committed and the delivery not acknowledged; with rows
locked and nothing published; with everything published and nothing marked."""

EFFECTS = """
CREATE TABLE effect (
  serial bigserial PRIMARY KEY, job_id uuid NOT NULL, pid int NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""
SETTLING_SECONDS, TALLYING_SECONDS = 0.05, 0.3
"""The longest that each of the two jobs takes."""


class TallyPayload(BaseModel):
    """Which transaction is counted."""

    transaction_id: UUID


TALLY = JobKind("maintenance.tally.v1", TallyPayload, JobOptions(attempts=5, backoff_seconds=1.0))
KILLER = JobKind("maintenance.killer.v1", TallyPayload)

_job: ContextVar[UUID] = ContextVar("job")


class Scene:
    """The journal and the traps of one process."""

    def __init__(self, role: str, folder: Path) -> None:
        self._traps = {point: str(trap(folder, role, point)) for point in POINTS[kind_of(role)]}
        self._file = os.open(
            journal(folder, role, os.getpid()), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600
        )

    def note(self, mark: str, job: str) -> None:
        os.write(self._file, f"{mark} {job} {time.monotonic():.6f}\n".encode())

    def reach(self, point: str) -> None:
        """Die here if there is a trap. It is gone then: who comes next is not to step into it."""
        if (path := self._traps.get(point)) is not None:
            try:
                os.unlink(path)  # noqa: PTH108 - one call on the path of every job
            except FileNotFoundError:
                return
            os.kill(os.getpid(), signal.SIGKILL)


def kind_of(role: str) -> str:
    return role.partition("-")[0]


def journal(folder: Path, role: str, pid: int) -> Path:
    return folder / f"{role}.{pid}.journal"


def trap(folder: Path, role: str, point: str) -> Path:
    return folder / f"{role}.{point}.trap"


def play(role: str, folder: Path) -> int:
    """Be that process until it ends; gives its exit code."""
    scene = Scene(role, folder)
    match kind_of(role):
        case "api":
            vars(app)["create_app"] = partial(_watched_app, scene, app.create_app)
            return run(app.serve)
        case "worker":
            vars(worker).update(
                run_jobs=partial(_run_jobs, worker.run_jobs),
                JobRunner=partial(WatchedRunner, scene),
                Effects=partial(WatchedEffects, scene),
                Relay=partial(WatchedRelay, scene),
            )
            vars(worker)["_scene"] = scene
            return run(worker.work)
        case _:
            return run(partial(_relay_only, scene))


class WatchedRunner(JobRunner):
    def __init__(self, scene: Scene, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._scene = scene

    async def __call__(self, delivery: Delivery) -> Again | None:
        self._scene.note("T", delivery.id)
        again = await super().__call__(delivery)
        self._scene.reach("performed")
        self._scene.note("E", delivery.id)
        return again


class WatchedEffects(Effects):
    def __init__(self, scene: Scene, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._scene = scene

    async def perform(self, job: Job) -> None:
        self._scene.note("S", str(job.id))
        _job.set(job.id)
        await super().perform(job)


class WatchedRelay(Relay):
    def __init__(self, scene: Scene, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._scene = scene

    async def _publish(self, records: list[JobRecord], ahead: timedelta) -> list[JobError | None]:
        self._scene.reach("claimed")
        results = await super()._publish(records, ahead)
        self._scene.reach("published")
        return results


async def _run_jobs(
    original: Callable[[Container, asyncio.Event], Awaitable[None]],
    container: Container,
    stopping: asyncio.Event,
) -> None:
    scene: Scene = vars(worker)["_scene"]
    settlement = transactions.settlement(container.transactions)

    async def settle(unit: UnitOfWork, payload: SettlementPayload) -> None:
        await _effect(unit)
        await settlement.handle(unit, payload)
        await container.outbox.add(unit, TALLY, TallyPayload(transaction_id=payload.transaction_id))
        scene.reach("running")
        await asyncio.sleep(random.uniform(0, SETTLING_SECONDS))

    async def tally(unit: UnitOfWork, _: TallyPayload) -> None:
        await _effect(unit)
        scene.reach("running")
        await asyncio.sleep(random.uniform(0, TALLYING_SECONDS))

    async def kill(_: UnitOfWork, __: TallyPayload) -> None:
        os._exit(9)

    handlers: tuple[Handler, ...] = (
        JobHandler(settlement.kind, settle),
        JobHandler(TALLY, tally),
        JobHandler(KILLER, kill),
    )
    vars(worker)["job_handlers"] = lambda *_: handlers
    await original(container, stopping)


async def _effect(unit: UnitOfWork) -> None:
    statement = text("INSERT INTO effect (job_id, pid) VALUES (:job, :pid)")
    await unit.session.execute(statement, {"job": _job.get(), "pid": os.getpid()})


async def _relay_only(scene: Scene, settings: Settings, stopping: asyncio.Event) -> None:
    async with open_container(settings, "worker") as container:
        relay = WatchedRelay(
            scene,
            settings.outbox,
            container.database,
            container.queue,
            container.jobs,
            RelayMetrics(container.telemetry.metrics),
        )
        relaying = asyncio.create_task(relay.run(), name="relay")
        waiting = asyncio.create_task(stopping.wait(), name="stopping")
        try:
            await asyncio.wait((relaying, waiting), return_when=asyncio.FIRST_COMPLETED)
            relay.stop()
            await relaying
        finally:
            await end(relaying, waiting)


def _watched_app(scene: Scene, create: Callable[[Container], ASGIApp], container: Container) -> ASGIApp:
    inner = create(container)

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message.get("status") == 201:
                scene.reach("answering")
            await send(message)

        await inner(scope, receive, answer)

    return watched
