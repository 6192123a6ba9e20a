"""One consumer of the queue file: keeps `concurrency` jobs running, and their leases fresh."""

import asyncio
import functools
import secrets
import time
from contextlib import suppress

from observability import get_logger
from service.errors import UnavailableError
from service.infra.queues import file_jobs
from service.infra.queues.file_jobs import Back, Outcome, Taken
from service.infra.queues.file_schema import now_us
from service.infra.queues.file_wake import Bell
from service.infra.queues.file_writer import FileWriter
from service.infra.queues.interface import Delivery, Runner
from service.tasks import end

log = get_logger(__name__)

_OUTAGE_PAUSE = (0.1, 5.0)
_DEFECT_DELAY = 1.0
_LAST_WORD_SECONDS = 2.0
_BELL_PATIENCE = 5
"""How many times longer the pause between two looks is where a bell wakes."""


class FileConsumer:
    """Each step is one transaction: it ends what has ended, renews what runs, and fills what is free."""

    def __init__(
        self, writer: FileWriter, bell: Bell, run: Runner, *, concurrency: int, poll: float, lease: float
    ) -> None:
        self.paused = False
        self._writer, self._bell, self._runner = writer, bell, run
        self._concurrency, self._poll, self._lease = concurrency, poll, lease
        self._owner = secrets.randbits(62)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._ended: dict[int, Outcome] = {}
        self._wake = asyncio.Event()
        self._stepping = asyncio.Lock()
        self._stopping = False
        self._last_word: float | None = None
        self._done = asyncio.Event()
        # When to look for jobs, microseconds of the epoch; 0 is at once, None when something changes.
        self._look_at: int | None = 0
        self._seen = -1
        self._listening = self._heard = False
        self._renew_at = 0.0

    def look(self) -> None:
        """There may be a job to take."""
        self._look_at = 0
        self._wake.set()

    async def pause(self) -> None:
        """Returns when no fetch is under way any more."""
        self.paused = True
        self._wake.set()
        await self._hold()

    async def _hold(self) -> None:
        async with self._stepping:
            return

    async def run(self) -> None:
        """Until `stop`."""
        pause = _OUTAGE_PAUSE[0]
        try:
            while not self._finished():
                self._wake.clear()
                try:
                    await self._turn()
                    pause = _OUTAGE_PAUSE[0]
                except UnavailableError as error:
                    log.warning("queue.unavailable", reason=str(error), retryIn=pause)
                    await self._rest(pause)
                    pause = min(pause * 2, _OUTAGE_PAUSE[1])
        finally:
            self._listen(False)
            await end(*self._running.values())
            self._done.set()

    async def stop(self, grace: float) -> None:
        self._stopping = True
        self._wake.set()
        await self._hold()
        running = dict(self._running)
        if running:
            _, late = await asyncio.wait(running.values(), timeout=grace)
            if late:
                log.warning("queue.jobs_interrupted", jobs=len(late))
                await end(*late)
                for job, task in running.items():
                    if task in late:
                        # Another worker has it at once. A task that never began is still listed.
                        self._running.pop(job, None)
                        self._ended.setdefault(job, Back(0))
        self._last_word = time.monotonic() + _LAST_WORD_SECONDS
        self._wake.set()
        await self._done.wait()

    def _finished(self) -> bool:
        if self._last_word is None:
            return False
        if self._ended and time.monotonic() > self._last_word:
            log.warning("queue.not_acknowledged", jobs=len(self._ended), rerunAfter=self._lease)
            return True
        return not self._ended

    async def _turn(self) -> None:
        """A step if there is something to do, else a rest."""
        room = 0 if self._stopping or self.paused else self._concurrency - len(self._running)
        renew = bool(self._running) and time.monotonic() >= self._renew_at
        look = room > 0 and self._look_at is not None and now_us() >= self._look_at
        if self._ended or renew or look:
            async with self._stepping:
                # Paused while it waited for the lock: no fetch after all.
                await self._step(0 if self._stopping or self.paused else room, renew=renew)
            return
        self._listen(room > 0)
        await self._rest(self._patience(room))
        if room > 0 and not self._wake.is_set():
            await self._poll_changes()

    def _listen(self, wanted: bool) -> None:
        """Who has no room must not hear the bell in the place of one who has."""
        if wanted and not self._listening:
            self._bell.listen(self._hear)
        elif self._listening and not wanted:
            self._bell.deafen()
            if self._heard:
                self._bell.ring()
        self._listening = wanted

    def _hear(self) -> None:
        self._heard = True
        self.look()

    async def _step(self, room: int, *, renew: bool) -> None:
        ended = dict(self._ended)
        renewed = list(self._running) if renew else []
        taken: Taken = await self._writer.write(
            functools.partial(
                file_jobs.step,
                owner=self._owner,
                lease=self._lease,
                ended=ended,
                renewed=renewed,
                room=room,
            )
        )
        for job in ended:
            del self._ended[job]
        if renew or not self._running:
            self._renew_at = time.monotonic() + self._lease / 3
        if lost := [job for job in taken.lost if job in self._running]:
            log.warning("queue.leases_lost", jobs=len(lost))
        for job, delivery in taken.jobs:
            # A job of our own whose lease ran out while this process was held up: it runs already.
            if job not in self._running and job not in self._ended:
                self._running[job] = asyncio.create_task(self._run(job, delivery), name=f"job-{delivery.id}")
        if room > 0:
            self._heard = False
            full = len(taken.jobs) >= room
            self._look_at = 0 if full else taken.next_due
            if full:
                self._bell.ring()
        if any(isinstance(outcome, Back) for outcome in ended.values()):
            self._bell.ring()

    async def _run(self, job: int, delivery: Delivery) -> None:
        outcome: Outcome
        try:
            outcome = await self._runner(delivery)
        except Exception:
            log.exception("queue.runner_failed", jobId=delivery.id)
            outcome = Back(_DEFECT_DELAY)
        finally:
            self._running.pop(job, None)
            self._wake.set()
        self._ended[job] = outcome

    async def _poll_changes(self) -> None:
        """The bell may be lost, so that the file is asked now and then whether another has written."""
        seen = await self._writer.read(file_jobs.changes)
        if seen != self._seen:
            self._seen = seen
            self._look_at = await self._writer.read(file_jobs.next_due)

    def _patience(self, room: int) -> float | None:
        """How long there is nothing to do, seconds; None for until woken."""
        limits = []
        if self._running:
            limits.append(self._renew_at - time.monotonic())
        if room > 0:
            limits.append(self._poll * (_BELL_PATIENCE if self._bell.works else 1))
            if self._look_at is not None:
                limits.append((self._look_at - now_us()) / 1e6)
        return max(0.0, min(limits)) if limits else None

    async def _rest(self, seconds: float | None) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
