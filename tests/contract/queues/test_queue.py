"""What every queue engine keeps to: order, urgency, due times, repetition, sharing, and its limits."""

import asyncio
import time
from collections import Counter

import pytest

from service.errors import UnavailableError
from service.infra.queues.interface import PRIORITIES, Again, Delivery, Job
from tests.contract.queues.harness import (
    Broker,
    Working,
    drained,
    eventually,
    ids,
    job,
    numbered,
    published,
)

CLOCKS = 0.05
"""Seconds by which the broker's clock may differ from ours."""


@pytest.mark.parametrize("count", [0, 1, 1000])
async def test_published_jobs_run_once_each(broker: Broker, count: int) -> None:
    queue = broker.open()
    jobs = numbered(count)
    assert await queue.publish(jobs) == [None] * count
    async with Working(queue, concurrency=20) as worker:
        await worker.ran(count)
        await drained(queue)
    assert worker.times == Counter(ids(jobs))
    assert {Job.decode(delivery.body).id: delivery.body for delivery in worker.started} == {
        one.id: one.encode() for one in jobs
    }
    assert not any(delivery.redelivered for delivery in worker.started)


async def test_an_idle_worker_runs_what_is_published_later(broker: Broker) -> None:
    async with Working(broker.open()) as worker:
        for number in range(3):
            one = job()
            await published(broker.open(), one)
            await worker.ran(number + 1)
            assert worker.order[-1] == str(one.id)


async def test_the_order_of_a_batch_is_kept_by_a_worker_that_runs_one_at_a_time(broker: Broker) -> None:
    queue = broker.open()
    first, second = numbered(150), numbered(50)
    await published(queue, *first)
    await published(queue, *second)
    async with Working(queue) as worker:
        await worker.ran(200)
    assert worker.order == ids([*first, *second])


async def test_of_jobs_that_wait_together_the_urgent_run_first(broker: Broker) -> None:
    queue = broker.open()
    jobs = [one for priority in reversed(PRIORITIES) for one in numbered(3, priority=priority)]
    await published(queue, *jobs)
    async with Working(queue) as worker:
        await worker.ran(len(jobs))
    by_urgency = sorted(jobs, key=lambda one: PRIORITIES.index(one.options.priority))
    assert worker.order == ids(by_urgency)


async def test_an_urgent_job_overtakes_a_backlog(broker: Broker) -> None:
    queue = broker.open()
    await published(queue, *numbered(300, priority="bulk"))
    urgent = job(priority="critical")
    async with Working(queue, concurrency=2, seconds=0.02) as worker:
        await worker.ran(5)
        await published(queue, urgent)
        at = len(worker.started)
        await eventually(lambda: str(urgent.id) in worker.order)
        # It waits for what had been fetched before it and for nothing of the rest.
        assert worker.order.index(str(urgent.id)) <= at + 30
        await worker.ran(301)


async def test_a_job_due_later_runs_then_and_holds_up_no_other(broker: Broker) -> None:
    queue = broker.open()
    started: dict[str, float] = {}

    def note(delivery: Delivery) -> None:
        started[delivery.id] = time.time()

    later, sooner, now = job(delay=5.0), job(delay=3.0), job()
    async with Working(queue, answer=note) as worker:
        await published(queue, later, sooner, now)
        await worker.ran(1)
        assert worker.order == [str(now.id)]
        await worker.ran(3)
    assert worker.order == ids([now, sooner, later])
    for one in (later, sooner):
        assert started[str(one.id)] >= one.due_at.timestamp() - CLOCKS


async def test_a_job_due_in_the_past_runs_at_once(broker: Broker) -> None:
    queue = broker.open()
    await published(queue, job(delay=-3600))
    async with Working(queue) as worker:
        await worker.ran(1)


async def test_a_job_put_back_comes_again_after_its_delay_with_its_new_body(broker: Broker) -> None:
    queue = broker.open()
    first = job()
    second = first.model_copy(update={"attempt": 2})
    times: list[float] = []

    def once_more(delivery: Delivery) -> Again | None:
        times.append(time.time())
        return Again(second.encode(), 2.0) if Job.decode(delivery.body).attempt == 1 else None

    await published(queue, first)
    async with Working(queue, answer=once_more) as worker:
        await worker.ran(2)
        await drained(queue)
    assert worker.order == [str(first.id)] * 2
    assert [delivery.body for delivery in worker.started] == [first.encode(), second.encode()]
    assert times[1] - times[0] >= 2.0 - CLOCKS
    assert not any(delivery.redelivered for delivery in worker.started)


async def test_a_job_put_back_holds_up_no_other_and_keeps_its_urgency(broker: Broker) -> None:
    queue = broker.open()
    urgent, others = job(priority="high"), numbered(100)
    seen: set[str] = set()

    def urgent_fails_once(delivery: Delivery) -> Again | None:
        new = delivery.id not in seen
        seen.add(delivery.id)
        return Again(delivery.body, 0.0) if new and delivery.id == str(urgent.id) else None

    await published(queue, *others, urgent)
    async with Working(queue, answer=urgent_fails_once, seconds=0.02) as worker:
        await worker.ran(102)
        await drained(queue)
    assert worker.times == Counter(ids([*others, urgent, urgent]))
    assert worker.order[0] == str(urgent.id)
    assert worker.order[-1] != str(urgent.id)


async def test_many_jobs_put_back_again_and_again_all_come_to_their_end(broker: Broker) -> None:
    queue = broker.open()
    jobs = numbered(100)

    def third_time(delivery: Delivery) -> Again | None:
        one = Job.decode(delivery.body)
        if one.attempt == 3:
            return None
        return Again(one.model_copy(update={"attempt": one.attempt + 1}).encode(), 0.0)

    await published(queue, *jobs)
    async with Working(queue, concurrency=10, answer=third_time) as worker:
        await worker.ran(300)
        await drained(queue)
    assert worker.times == Counter(ids(jobs) * 3)


async def test_concurrency_is_reached_and_never_exceeded(broker: Broker) -> None:
    queue = broker.open()
    await published(queue, *numbered(60))
    async with Working(queue, concurrency=7, gated=True) as worker:
        await worker.has_started(7)
        await asyncio.sleep(1)
        assert worker.running == 7
        worker.gate.set()
        await worker.ran(60)
    assert worker.most == 7


async def test_two_workers_share_the_jobs_and_each_runs_once(broker: Broker) -> None:
    jobs = numbered(300)
    left, right = broker.open(), broker.open()
    async with (
        Working(left, concurrency=5, seconds=0.01) as one,
        Working(right, concurrency=5, seconds=0.01) as other,
    ):
        await published(broker.open(), *jobs)
        await eventually(lambda: len(one.finished) + len(other.finished) >= 300)
        await drained(left)
    assert one.times + other.times == Counter(ids(jobs))
    assert min(len(one.started), len(other.started)) >= 30


async def test_a_job_published_twice_runs_once_or_twice_and_leaves_nothing(broker: Broker) -> None:
    queue = broker.open()
    same, other = job(), job()
    await published(queue, same, same, other)
    await published(queue, same)
    async with Working(queue) as worker:
        await worker.ran(2)
        await drained(queue)
    assert set(worker.order) == {str(same.id), str(other.id)}
    assert 1 <= worker.times[str(same.id)] <= 3
    assert worker.times[str(other.id)] == 1


async def test_a_job_that_has_run_can_be_published_anew(broker: Broker) -> None:
    queue = broker.open()
    one = job()
    async with Working(queue) as worker:
        for number in range(3):
            await published(queue, one)
            await worker.ran(number + 1)
            await drained(queue)
    assert worker.order == [str(one.id)] * 3


async def test_a_job_published_while_it_runs_is_not_swallowed_by_the_end_of_that_run(broker: Broker) -> None:
    queue = broker.open()
    one = job()
    again = one.model_copy(update={"payload": {"again": True}})
    await published(queue, one)
    async with Working(queue, gated=True) as worker:
        await worker.has_started(1)
        await published(broker.open(), again)
        worker.gate.set()
        await worker.ran(2)
        await drained(queue)
    assert worker.order == [str(one.id)] * 2
    assert worker.started[1].body == again.encode()


@pytest.mark.parametrize("size", [0, 1_000_000])
async def test_payloads_of_any_size_arrive_as_they_were(broker: Broker, size: int) -> None:
    queue = broker.open()
    one = job(payload={"text": "é" * (size // 2)} if size else {}, meta={"emoji": "🧾"})
    await published(queue, one)
    async with Working(queue) as worker:
        await worker.ran(1)
    assert Job.decode(worker.started[0].body) == one


@pytest.mark.parametrize("body", [b"", b"{}", b"not JSON", b"\xff\xfe\x00", b"null", b'{"id": 1}'])
async def test_a_body_that_is_no_envelope_reaches_the_runner(broker: Broker, body: bytes) -> None:
    queue = broker.open()
    await broker.put_raw(body)
    good = job()
    await published(queue, good)
    async with Working(queue) as worker:
        await worker.ran(2)
        await drained(queue)
    assert sorted(delivery.body for delivery in worker.started) == sorted([body, good.encode()])
    assert all(delivery.id for delivery in worker.started)


async def test_a_malformed_body_can_be_put_back_as_it_is(broker: Broker) -> None:
    queue = broker.open()
    await broker.put_raw(b"not JSON")
    answers = iter([Again(b"not JSON", 0.0), None])
    async with Working(queue, answer=lambda _: next(answers)) as worker:
        await worker.ran(2)
        await drained(queue)
    assert [delivery.body for delivery in worker.started] == [b"not JSON"] * 2
    assert len(set(worker.order)) == 1


async def test_a_runner_with_a_defect_loses_no_job_and_ends_no_consumer(broker: Broker) -> None:
    queue = broker.open()
    bad, good = job(), numbered(5)
    failed: list[str] = []

    def raise_once(delivery: Delivery) -> Again | None:
        if delivery.id == str(bad.id) and not failed:
            failed.append(delivery.id)
            raise LookupError("a defect")
        return None

    await published(queue, bad, *good)
    async with Working(queue, answer=raise_once) as worker:
        await worker.ran(6)
        await drained(queue)
        assert not worker.task.done()
    assert worker.times == Counter(ids([bad, bad, *good]))
    assert next(d for d in worker.finished if d.id == str(bad.id)).redelivered


async def test_stats_tell_what_waits_what_runs_and_what_is_not_due(broker: Broker) -> None:
    queue = broker.open()

    async def shows(waiting: int, delayed: int) -> bool:
        stats = await queue.stats()
        return (stats.waiting, stats.delayed) == (waiting, delayed)

    await eventually(lambda: shows(0, 0))
    await published(queue, *numbered(3), *numbered(2, delay=3600))
    await eventually(lambda: shows(3, 2))
    async with Working(queue, gated=True) as worker:
        await worker.has_started(1)
        await eventually(lambda: shows(3, 2))
        worker.gate.set()
        await worker.ran(3)
        await eventually(lambda: shows(0, 2))


async def test_without_a_broker_publishing_and_asking_say_so_within_seconds(broker: Broker) -> None:
    queue = broker.away()
    async with asyncio.timeout(15):
        with pytest.raises(UnavailableError):
            await queue.publish([job()])
        with pytest.raises(UnavailableError):
            await queue.ping()
        with pytest.raises(UnavailableError):
            await queue.stats()


async def test_a_consumer_without_a_broker_goes_on_trying_until_it_is_stopped(broker: Broker) -> None:
    async with Working(broker.away(), concurrency=3) as worker:
        await asyncio.sleep(1)
        assert not worker.task.done()
        await worker.stop(1.0)
        assert worker.task.done()
        assert worker.task.exception() is None


async def test_ping_and_close_are_quiet(broker: Broker) -> None:
    queue = broker.open()
    await queue.ping()
    await queue.close()
    await queue.close()
    assert queue.system
    assert queue.name
