"""What every queue engine does when workers are killed, stopped and paused."""

import asyncio
import signal

import pytest

from tests.contract.queues.harness import (
    LEASE,
    Broker,
    Working,
    drained,
    eventually,
    ids,
    numbered,
    published,
    victim,
)

LONG = 60.0
SOON = 15.0
"""Well before a long lease ends."""


async def test_the_jobs_of_a_killed_process_go_to_another_worker(broker: Broker) -> None:
    queue = broker.open()
    jobs = numbered(10)
    await published(queue, *jobs)
    async with victim(broker, concurrency=4) as (process, started):
        await eventually(lambda: len(started) == 4)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        async with Working(queue, concurrency=10) as worker:
            await worker.ran(10, within=LEASE + SOON)
            await drained(queue)
    assert sorted(worker.order) == sorted(ids(jobs))
    redelivered = {delivery.id for delivery in worker.started if delivery.redelivered}
    assert redelivered >= set(started)


async def test_a_worker_that_is_idle_takes_over_from_a_killed_one(broker: Broker) -> None:
    jobs = numbered(3)
    async with victim(broker, concurrency=3) as (process, started):
        await published(broker.open(), *jobs)
        await eventually(lambda: len(started) == 3)
        async with Working(broker.open(), concurrency=3) as worker:
            await asyncio.sleep(1)
            assert worker.started == []
            process.send_signal(signal.SIGKILL)
            await worker.ran(3, within=LEASE + SOON)
    assert sorted(worker.order) == sorted(ids(jobs))
    assert all(delivery.redelivered for delivery in worker.started)


async def test_a_cancelled_consumer_leaves_its_jobs_to_another(broker: Broker) -> None:
    jobs = numbered(6)
    await published(broker.open(), *jobs)
    async with Working(broker.open(), concurrency=3, gated=True) as killed:
        await killed.has_started(3)
        await killed.kill()
        assert killed.running == 0
    assert killed.finished == []
    async with Working(broker.open(), concurrency=3) as worker:
        await worker.ran(6, within=LEASE + SOON)
    assert sorted(worker.order) == sorted(ids(jobs))
    assert {d.id for d in worker.started if d.redelivered} >= set(killed.order)


async def test_a_job_that_runs_longer_than_the_lease_is_given_to_nobody_else(broker: Broker) -> None:
    await published(broker.open(), *numbered(3))
    async with (
        Working(broker.open(), concurrency=3, gated=True) as long,
        Working(broker.open(), concurrency=3) as other,
    ):
        await eventually(lambda: len(long.started) + len(other.started) == 3)
        held = len(long.started)
        await asyncio.sleep(LEASE * 2.5)
        assert (len(long.started), len(other.started)) == (held, 3 - held)
        long.gate.set()
        await long.ran(held)
        await drained(long.queue)
    assert len(long.started) + len(other.started) == 3


async def test_stopping_finishes_what_runs_and_leaves_the_rest(broker: Broker) -> None:
    queue = broker.open(lease_seconds=LONG)
    jobs = numbered(10)
    await published(queue, *jobs)
    async with Working(queue, concurrency=2, gated=True) as worker:
        await worker.has_started(2)
        stopping = asyncio.create_task(worker.stop(LONG))
        await asyncio.sleep(1)
        assert not stopping.done()
        worker.gate.set()
        await stopping
    assert len(worker.started) == len(worker.finished) == 2
    assert worker.interrupted == []
    async with Working(broker.open(lease_seconds=LONG), concurrency=2) as next_worker:
        await next_worker.ran(8, within=SOON)
        await drained(queue)
    assert sorted(worker.order + next_worker.order) == sorted(ids(jobs))


async def test_stopping_hands_back_what_does_not_end_in_time(broker: Broker) -> None:
    jobs = numbered(5)
    queue = broker.open(lease_seconds=LONG)
    await published(queue, *jobs)
    async with Working(queue, concurrency=3, gated=True) as worker:
        await worker.has_started(3)
        await worker.stop(0.5)
        assert len(worker.interrupted) == 3
        async with Working(broker.open(lease_seconds=LONG), concurrency=5) as next_worker:
            await next_worker.ran(5, within=SOON)
            await drained(queue)
    assert sorted(next_worker.order) == sorted(ids(jobs))
    assert {d.id for d in next_worker.started if d.redelivered} >= set(worker.order)


async def test_stopping_an_idle_worker_takes_no_time(broker: Broker) -> None:
    async with Working(broker.open(lease_seconds=LONG), concurrency=3) as worker:
        await asyncio.sleep(1)
        async with asyncio.timeout(SOON):
            await worker.stop(LONG)
        assert worker.task.exception() is None


async def test_a_stop_before_consuming_is_quiet(broker: Broker) -> None:
    queue = broker.open()
    async with asyncio.timeout(SOON):
        await queue.stop(LONG)
        await queue.consume(_never, concurrency=1)


async def _never(_: object) -> None:
    pytest.fail("a stopped queue ran a job")


async def test_a_pause_fetches_no_more_and_a_resume_goes_on(broker: Broker) -> None:
    queue = broker.open()
    jobs = numbered(8)
    await published(queue, *jobs)
    async with Working(queue, concurrency=2, gated=True) as worker:
        await worker.has_started(2)
        await queue.pause()
        await queue.pause()
        worker.gate.set()
        await worker.ran(2)
        await asyncio.sleep(1)
        assert len(worker.started) == 2
        assert (await queue.stats()).waiting == 6
        await queue.resume()
        await queue.resume()
        await worker.ran(8)
        await drained(queue)
    assert worker.order == ids(jobs)


async def test_a_paused_worker_leaves_the_jobs_to_others(broker: Broker) -> None:
    queue, other = broker.open(lease_seconds=LONG), broker.open(lease_seconds=LONG)
    jobs = numbered(20)
    await published(queue, *jobs)
    async with Working(queue, concurrency=2, gated=True) as paused:
        await paused.has_started(2)
        await queue.pause()
        async with Working(other, concurrency=2) as worker:
            await worker.ran(18, within=SOON)
        paused.gate.set()
        await paused.ran(2)
        await drained(queue)
    assert sorted(paused.order + worker.order) == sorted(ids(jobs))


async def test_a_queue_paused_before_it_is_consumed_waits_for_its_resume(broker: Broker) -> None:
    queue = broker.open()
    await queue.pause()
    await published(queue, *numbered(3))
    async with Working(queue) as worker:
        await asyncio.sleep(1)
        assert worker.started == []
        await queue.resume()
        await worker.ran(3)


async def test_a_paused_worker_can_be_stopped(broker: Broker) -> None:
    queue = broker.open()
    async with Working(queue, gated=True) as worker:
        await published(queue, *numbered(2))
        await worker.has_started(1)
        await queue.pause()
        stopping = asyncio.create_task(worker.stop(LONG))
        worker.gate.set()
        await stopping
    assert len(worker.finished) == 1
