"""The worker's side of the `redis` engine: takes jobs, keeps their leases, tells what became of them."""

import asyncio
import time
import uuid
from contextlib import suppress
from itertools import count

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from observability import get_logger
from service.infra.queues.interface import Delivery, Runner
from service.infra.queues.redis_scripts import Lease, QueueScripts, Verdict
from service.infra.redis.client import Pool
from service.tasks import end, first_of

log = get_logger(__name__)

FAULTS = (RedisError, OSError, TimeoutError)
_PAUSES = (0.1, 5.0)
_SILENCE_SECONDS = 5.0
_MOST_AT_ONCE = 250
_FLUSH_SECONDS = 5.0


class WakeList:
    """Waits for a token in the queue's wake list, on a connection beside the pool."""

    def __init__(self, pool: Pool, key: str) -> None:
        self._pool, self._key = pool, key
        self._connection: AbstractConnection | None = None

    async def wait(self, seconds: float) -> None:
        """Returns when a token was there, or after so many seconds. Raises FAULTS."""
        if self._connection is None:
            self._connection = self._pool.make()
            await self._connection.connect()  # type: ignore[no-untyped-call]
        # 0 would be for ever.
        await self._connection.send_command("BLPOP", self._key, f"{max(seconds, 0.001):.3f}")
        patience = seconds + _SILENCE_SECONDS
        started = time.monotonic()
        answer = await self._connection.read_response(timeout=patience)
        if answer is None and time.monotonic() - started >= patience:
            raise TimeoutError("the server is silent")

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


class RedisConsumer:
    """One worker. It takes no more than it has room to run, so that what it holds is running."""

    def __init__(
        self, scripts: QueueScripts, pool: Pool, run: Runner,
        *, name: str, concurrency: int, lease: float, poll: float, paused: bool,
    ) -> None:  # fmt: skip
        self._scripts, self._run_job, self._name = scripts, run, name
        self._concurrency, self._lease, self._poll = concurrency, lease, poll
        self._wake_list = WakeList(pool, scripts.wake_key)
        self._running: dict[Lease, asyncio.Task[None]] = {}
        self._verdicts: list[Verdict] = []
        self._judged, self._room, self._control = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._renewed = time.monotonic()
        self._paused = paused
        self._grace: float | None = None
        self._ended = asyncio.Event()
        nonce = uuid.uuid4().hex
        self._tokens = (f"{nonce}:{number}" for number in count())

    def pause(self) -> None:
        self._paused = True
        self._signal()

    def resume(self) -> None:
        self._paused = False
        self._signal()

    async def stop(self, grace: float) -> None:
        """Returns when `run` has ended."""
        self._grace = grace
        self._signal()
        await self._ended.wait()

    async def run(self) -> None:
        """Work until `stop`. Cancelled, it leaves its jobs to the end of their leases."""
        settling = asyncio.create_task(self._settle(), name="queue-settle")
        renewing = asyncio.create_task(self._keep_leases(), name="queue-leases")
        pause = _PAUSES[0]
        try:
            while self._grace is None:
                try:
                    await self._step()
                    pause = _PAUSES[0]
                except FAULTS as error:
                    await self._wake_list.close()
                    log.warning("queue.unavailable", queue=self._name, reason=_text(error), retryIn=pause)
                    await self._await_control(pause)
                    pause = min(pause * 2, _PAUSES[1])
            await self._finish(self._grace)
            await end(settling)
            await self._flush()
        finally:
            await end(*self._running.values(), settling, renewing)
            await self._wake_list.close()
            self._ended.set()

    async def _step(self) -> None:
        """Take jobs, or wait for what stands in the way of that."""
        room = self._concurrency - len(self._running)
        if self._paused:
            # We may have been woken and not have looked: wake another.
            await self._scripts.settle(())
            await self._await_control(None)
        elif room <= 0:
            self._room.clear()
            await self._room.wait()
        else:
            if time.monotonic() - self._renewed > self._lease / 2:
                # After an outage or a long standstill a look at the queue would find our own jobs lost.
                await self._renew()
            taken = await self._scripts.take(min(room, _MOST_AT_ONCE), next(self._tokens))
            for lease, delivery in taken.jobs:
                self._start(lease, delivery)
            if not taken.jobs:
                await self._idle(self._poll if taken.idle_for is None else min(taken.idle_for, self._poll))

    def _start(self, lease: Lease, delivery: Delivery) -> None:
        if self._paused or self._grace is not None:
            # We were told so while they were under way.
            self._judge(Verdict(lease, "unstarted"))
        else:
            self._running[lease] = asyncio.create_task(self._perform(lease, delivery), name="job")

    async def _perform(self, lease: Lease, delivery: Delivery) -> None:
        try:
            again = await self._run_job(delivery)
        except asyncio.CancelledError:
            self._judge(Verdict(lease, "interrupted"))
            raise
        except Exception:
            # A defect of ours. The job comes again when its lease has run out, which keeps it from spinning.
            log.exception("queue.runner_failed", queue=self._name, jobId=delivery.id)
        else:
            if again is None:
                self._judge(Verdict(lease, "done"))
            else:
                self._judge(Verdict(lease, "again", again.delay, again.body))
        finally:
            self._running.pop(lease, None)
            self._room.set()

    def _judge(self, verdict: Verdict) -> None:
        self._verdicts.append(verdict)
        self._judged.set()

    def _signal(self) -> None:
        self._control.set()
        self._room.set()

    async def _await_control(self, seconds: float | None) -> None:
        """Wait for a pause, a resume or a stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._control.wait(), seconds)
        self._control.clear()

    async def _idle(self, seconds: float) -> None:
        """Wait to be woken, or as `_await_control`. Raises FAULTS."""
        waking = asyncio.create_task(self._wake_list.wait(seconds), name="queue-wake")
        control = asyncio.create_task(self._await_control(None), name="queue-control")
        try:
            await first_of(waking, control)
        finally:
            woken = waking.done()
            await end(waking, control)
        if woken:
            waking.result()
        else:
            # Its answer may still be under way and must not meet the next question.
            await self._wake_list.close()

    async def _settle(self) -> None:
        """Tell what became of jobs, of all that ended meanwhile at once, until it is heard."""
        pause = _PAUSES[0]
        while True:
            await self._judged.wait()
            batch = self._verdicts[:_MOST_AT_ONCE]
            try:
                await self._scripts.settle(batch)
            except FAULTS as error:
                log.warning(
                    "queue.acknowledgements_delayed", queue=self._name, jobs=len(batch), reason=_text(error)
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSES[1])
            else:
                pause = _PAUSES[0]
                del self._verdicts[: len(batch)]
                if not self._verdicts:
                    self._judged.clear()

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 4)
            try:
                await self._renew()
            except FAULTS as error:
                log.warning("queue.leases_not_renewed", queue=self._name, reason=_text(error))

    async def _renew(self) -> None:
        """Raises FAULTS."""
        started = time.monotonic()
        held = [*self._running, *(verdict.lease for verdict in self._verdicts)]
        if held:
            lost = sum(lease in self._running for lease in await self._scripts.renew(held))
            if lost:
                # The worker or the server stood still for longer than a lease: the job runs twice.
                log.warning("queue.leases_lost", queue=self._name, jobs=lost)
        self._renewed = started

    async def _finish(self, grace: float) -> None:
        """Let what runs come to its end, and interrupt what does not."""
        running = list(self._running.values())
        if running:
            _, late = await asyncio.wait(running, timeout=grace)
            if late:
                log.warning("queue.jobs_interrupted", queue=self._name, jobs=len(late))
                await end(*late)

    async def _flush(self) -> None:
        """Tell the last verdicts, if there are any, and wake another worker."""
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self._scripts.settle(self._verdicts)
        except FAULTS as error:
            if self._verdicts:
                # Their leases run out and the jobs run again, with no second effect.
                jobs = len(self._verdicts)
                log.warning("queue.acknowledgements_lost", queue=self._name, jobs=jobs, reason=_text(error))


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
