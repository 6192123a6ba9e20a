"""What is RabbitMQ's own: what it refuses, what it declares, and that no fault on the way loses a job."""

import asyncio
import gc
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aio_pika
import aiormq
import pytest
from aiormq.base import FutureStore

from compose.native import Stack
from service.errors import UnavailableError
from service.infra.queues.interface import Again, Delivery, Job, RefusedJobError
from service.infra.queues.rabbitmq import QueueType, RabbitQueue, TopologyError
from service.infra.queues.rabbitmq.link import faults
from service.infra.queues.rabbitmq.publisher import Outgoing
from tests.contract.queues.harness import (
    Working,
    drained,
    eventually,
    ids,
    job,
    numbered,
    published,
    victim,
)
from tests.contract.queues.proxy import Proxy, proxied
from tests.contract.queues.rabbitmq_broker import RabbitBroker, needs_rabbitmq, open_queue

BOTH = pytest.mark.parametrize("queue_type", ["classic", "quorum"])


@asynccontextmanager
async def channel(url: str) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    """A way in beside the engine's."""
    async with await aio_pika.connect(url) as connection:
        yield await (await connection.channel()).get_underlay_channel()


async def count(url: str, queue: str) -> int:
    async with channel(url) as raw:
        return (await raw.queue_declare(queue, passive=True)).message_count or 0


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2].partition("/")[0])


def through(url: str, proxy: Proxy) -> str:
    return url.replace(f":{port_of(url)}/", f":{proxy.port}/")


async def test_a_job_without_a_queue_is_refused_and_the_rest_of_its_batch_taken(
    rabbitmq_broker: RabbitBroker,
) -> None:
    queue = rabbitmq_broker.open()
    jobs = [job(), job(name="nowhere.at_all.v1"), job(name="nowhere.later.v1", delay=1), job()]
    answers = await queue.publish(jobs)
    assert [type(answer) for answer in answers] == [type(None), RefusedJobError, RefusedJobError, type(None)]
    assert "nowhere.at_all.v1" in str(answers[1])


async def test_what_no_queue_takes_comes_back_from_the_broker(rabbitmq_broker: RabbitBroker) -> None:
    queue = rabbitmq_broker.open()
    await queue.ping()
    prefix = queue.topology.prefix
    async with channel(rabbitmq_broker.url) as raw:
        await raw.queue_unbind(f"{prefix}.email", queue.topology.main, "*.email.#")
    lost = [job(name="email.welcome.v1") for _ in range(3)]
    answers = await queue.publish([lost[0], *numbered(50), lost[1], lost[1], lost[2]])
    assert [index for index, answer in enumerate(answers) if answer is not None] == [0, 51, 52, 53]
    assert all(isinstance(answers[index], RefusedJobError) for index in (0, 51, 52, 53))
    assert await count(rabbitmq_broker.url, f"{prefix}.maintenance") == 50
    # Another connection declares what is missing.
    await published(rabbitmq_broker.open(), lost[0])


async def test_a_job_over_the_settings_limit_is_refused_without_being_sent(
    rabbitmq_broker: RabbitBroker,
) -> None:
    queue = rabbitmq_broker.open(max_bytes=2000)
    answers = await queue.publish([job(), job(payload={"text": "x" * 2000}), job()])
    assert answers[0] is answers[2] is None
    assert isinstance(answers[1], RefusedJobError)
    assert "QUEUE_RABBITMQ_MAX_MESSAGE_BYTES=2000" in str(answers[1])


@pytest.mark.skipif("AMQP_URL" in os.environ, reason="the limit of the broker at AMQP_URL is not known")
async def test_a_job_over_the_brokers_limit_is_refused_and_the_rest_of_its_batch_taken(
    rabbitmq_broker: RabbitBroker,
) -> None:
    queue = rabbitmq_broker.open(max_bytes=100_000_000)
    before, after = numbered(5), numbered(5)
    answers = await queue.publish([*before, job(payload={"text": "x" * 17_000_000}), *after])
    assert isinstance(answers[5], RefusedJobError)
    assert answers[:5] + answers[6:] == [None] * 10
    async with Working(queue, concurrency=5) as worker:
        await drained(queue)
    assert set(worker.order) == set(ids([*before, *after]))


async def test_a_job_put_back_too_large_goes_to_the_dead_letters(rabbitmq_broker: RabbitBroker) -> None:
    queue = rabbitmq_broker.open(max_bytes=2000)
    one = job()
    await published(queue, one)
    async with Working(queue, answer=lambda _: Again(b"x" * 2001, 0)) as worker:
        await worker.ran(1)
        await drained(queue)

        async def dead() -> bool:
            return await count(rabbitmq_broker.url, queue.topology.dead.name) == 1

        await eventually(dead)
    assert worker.order == [str(one.id)]


async def test_a_queue_with_other_arguments_is_named_with_what_to_do_and_heals(
    rabbitmq_broker: RabbitBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    await rabbitmq_broker.open().ping()
    other = rabbitmq_broker.open(queue_type="quorum")
    with pytest.raises(UnavailableError) as raised:
        await other.publish([job()])
    cause = raised.value.__cause__
    assert isinstance(cause, TopologyError)
    first = f"queue {other.topology.prefix}.transaction"
    assert first in str(cause)
    assert "x-queue-type" in str(cause) or "x-delivery-limit" in str(cause) or "x-max-priority" in str(cause)
    assert "delete" in str(cause)
    assert "queue.unavailable" in capfd.readouterr().err
    async with Working(other) as worker:
        async with channel(rabbitmq_broker.url) as raw:
            for queue in (*rabbitmq_broker.open().topology.work, other.topology.dead):
                await raw.queue_delete(queue.name)
        one = job()
        await until_published(other, one)
        await worker.ran(1)
    rabbitmq_broker.queue_type = "quorum"


async def test_a_wrong_password_says_what_to_do_and_names_no_password(
    rabbitmq_broker: RabbitBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    url = re.sub(r":[^:@]*@", ":not-this-one@", rabbitmq_broker.url, count=1)
    queue = open_queue(url, rabbitmq_broker.name)
    with pytest.raises(UnavailableError) as raised:
        await queue.ping()
    said = capfd.readouterr().err
    assert "QUEUE_RABBITMQ_URL" in said
    assert "not-this-one" not in said + str(raised.value) + repr(raised.value.__cause__)


async def test_failed_attempts_to_connect_are_spaced_out(
    rabbitmq_broker: RabbitBroker, capfd: pytest.CaptureFixture[str]
) -> None:
    queue = rabbitmq_broker.away()
    end = time.monotonic() + 2
    while time.monotonic() < end:
        with pytest.raises(UnavailableError):
            await queue.ping()
        await asyncio.sleep(0.01)
    # 0.1 + 0.2 + 0.4 + 0.8 + 1.6 s: the fifth pause outlasts the two seconds.
    assert 2 <= capfd.readouterr().err.count("queue.unavailable") <= 5


async def test_attempts_to_connect_that_fail_leave_nothing_to_the_garbage_collector(
    rabbitmq_broker: RabbitBroker,
) -> None:
    queue = rabbitmq_broker.away()
    with suppress(UnavailableError):
        await queue.ping()
    await queue.close()
    before = asyncio.all_tasks()
    gc.collect()
    # What it found open it would close, in a task of its own.
    assert asyncio.all_tasks() == before


async def test_what_the_client_raises_for_a_connection_that_ended_without_a_reason_is_an_outage() -> None:
    store = FutureStore(asyncio.get_running_loop())
    waiting = store.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    await store.reject_all(None)
    with pytest.raises(UnavailableError) as raised, faults():
        await waiting
    assert type(raised.value.__cause__) is Exception
    with pytest.raises(LookupError), faults():
        raise LookupError("a defect is none")


async def test_a_deleted_queue_is_declared_and_consumed_anew(rabbitmq_broker: RabbitBroker) -> None:
    queue = rabbitmq_broker.open()
    async with Working(queue) as worker:
        await published(queue, job())
        await worker.ran(1)
        async with channel(rabbitmq_broker.url) as raw:
            await raw.queue_delete(f"{queue.topology.prefix}.maintenance")

        async def back() -> bool:
            return await rabbitmq_broker.open().publish([job()]) == [None]

        await eventually(back, every=0.2)
        await worker.ran(2)


async def test_a_pause_that_is_over_at_once_stops_nothing(rabbitmq_broker: RabbitBroker) -> None:
    queue = rabbitmq_broker.open()
    async with Working(queue) as worker:
        await published(queue, job())
        await worker.ran(1)
        for number in range(3):
            await queue.pause()
            await queue.resume()
            await published(queue, job())
            await worker.ran(number + 2)


async def test_a_wait_longer_than_the_ladder_is_put_back_for_its_rest(rabbitmq_broker: RabbitBroker) -> None:
    queue = rabbitmq_broker.open()
    one = job(delay=4)
    due = one.due_at.timestamp()
    # As it comes out of the ladder, before its time.
    early = Outgoing(
        queue.topology.route("normal", one.name, 0), str(one.id), one.encode(), 2, one.name, int(due * 1000)
    )
    times: list[float] = []
    async with Working(queue, answer=lambda _: times.append(time.time())) as worker:
        assert await queue._publisher.publish([early]) == [None]
        await worker.ran(1)
    assert len(times) == 1
    assert times[0] >= due - 0.05
    assert Job.decode(worker.started[0].body) == one


async def test_many_different_delays_each_end_on_time(rabbitmq_broker: RabbitBroker) -> None:
    queue = rabbitmq_broker.open()
    jobs = [job(delay=(number * 37 % 100) * 0.04 + 0.5) for number in range(100)]
    due = {str(one.id): one.due_at.timestamp() for one in jobs}
    late: list[float] = []
    async with Working(
        queue, concurrency=20, answer=lambda d: late.append(time.time() - due[d.id])
    ) as worker:
        await published(queue, *jobs)
        await worker.ran(100)
    assert min(late) >= -0.05
    # A second is promised; the rest is for a machine that does other things too.
    assert max(late) < 3


@BOTH
async def test_urgent_jobs_of_one_domain_overtake_another_domain(
    amqp_url: str, queue_type: QueueType
) -> None:
    broker = RabbitBroker(amqp_url, queue_type)
    queue = broker.open()
    bulk = [job(name="report.big.v1", priority="bulk") for _ in range(3)]
    urgent = job(name="slack.alert.v1", priority="critical")
    high = job(name="email.reset.v1", priority="high")
    await published(queue, *bulk, high, urgent)
    async with Working(queue) as worker:
        await worker.ran(5)
    assert worker.order == ids([urgent, high, *bulk])
    await broker.close()


async def test_a_stream_of_urgent_jobs_leaves_no_place_to_another_domain_until_its_end(
    rabbitmq_broker: RabbitBroker,
) -> None:
    queue = rabbitmq_broker.open()
    bulk = [job(name=f"{domain}.big.v1", priority="bulk") for domain in ("report", "sms", "user") * 10]
    urgent = [job(name="slack.alert.v1", priority="high") for _ in range(30)]
    await published(queue, *bulk, *urgent)
    async with Working(queue, concurrency=2, seconds=0.005) as worker:
        await worker.ran(60)
    assert worker.order.index(ids(urgent)[-1]) <= len(urgent) + 3


async def test_a_worker_that_stands_still_loses_its_jobs_to_another(rabbitmq_broker: RabbitBroker) -> None:
    jobs = numbered(3)
    await published(rabbitmq_broker.open(), *jobs)
    recipe = rabbitmq_broker.recipe
    rabbitmq_broker.recipe = lambda: (recipe()[0], {**recipe()[1], "heartbeat": 2})  # type: ignore[method-assign]
    async with victim(rabbitmq_broker, concurrency=3) as (process, started):
        await eventually(lambda: len(started) == 3)
        process.send_signal(signal.SIGSTOP)
        async with Working(rabbitmq_broker.open(), concurrency=3) as worker:
            await worker.ran(3)
    assert sorted(worker.order) == sorted(ids(jobs))
    assert all(delivery.redelivered for delivery in worker.started)


async def until_published(queue: RabbitQueue, *jobs: Job) -> None:
    """Publish as the relay does: again, until there is an answer."""

    async def once() -> bool:
        try:
            return await queue.publish(jobs) == [None] * len(jobs)
        except UnavailableError:
            return False

    await eventually(once, within=60, every=0.05)


@BOTH
async def test_cut_connections_lose_no_job(amqp_url: str, queue_type: QueueType) -> None:
    broker = RabbitBroker(amqp_url, queue_type)
    jobs = numbered(600)
    async with proxied(port_of(amqp_url)) as proxy:
        publisher = open_queue(through(amqp_url, proxy), broker.name, queue_type)
        consumer = open_queue(through(amqp_url, proxy), broker.name, queue_type)
        async with Working(consumer, concurrency=10, answer=_once_again, seconds=0.005) as worker:
            for start in range(0, 600, 60):
                publishing = asyncio.create_task(until_published(publisher, *jobs[start : start + 60]))
                await asyncio.sleep(0.03)
                if start % 120 == 0:
                    proxy.cut()
                await publishing
            await eventually(
                lambda: {delivery.id for delivery in worker.finished} >= set(ids(jobs)), within=60
            )
            await drained(consumer)
        assert proxy.accepted >= 6
        await publisher.close()
        await consumer.close()
    assert _attempts(worker) == {(one, attempt) for one in ids(jobs) for attempt in (1, 2)}
    await broker.close()


async def test_a_broker_that_says_nothing_more_is_unknown_after_the_timeout(
    rabbitmq_broker: RabbitBroker,
) -> None:
    async with proxied(port_of(rabbitmq_broker.url)) as proxy:
        queue = open_queue(through(rabbitmq_broker.url, proxy), rabbitmq_broker.name, timeout=1.5)
        await published(queue, job())
        proxy.flowing.clear()
        async with asyncio.timeout(15):
            with pytest.raises(UnavailableError):
                await queue.publish(numbered(3))
        proxy.flowing.set()
        await until_published(queue, job())
        await queue.close()


@pytest.mark.skipif("AMQP_URL" in os.environ, reason="the broker at AMQP_URL is not to be killed")
@BOTH
async def test_a_broker_killed_while_jobs_come_and_go_loses_none(
    queue_type: QueueType, tmp_path: Path
) -> None:
    needs_rabbitmq()
    jobs = numbered(1000)
    with Stack(tmp_path, only=("rabbitmq",)) as stack:
        url = stack.endpoints()["rabbitmq"]
        publisher, consumer = (open_queue(url, "killed", queue_type) for _ in range(2))

        async def publish() -> None:
            for start in range(0, len(jobs), 50):
                await until_published(publisher, *jobs[start : start + 50])
                await asyncio.sleep(0.02)

        async with Working(consumer, concurrency=10, answer=_once_again) as worker:
            publishing = asyncio.create_task(publish())
            for enough in (200, 800):
                await worker.ran(enough, within=60)
                await asyncio.to_thread(stack.kill, "rabbitmq")
                await asyncio.to_thread(stack.start, "rabbitmq")
            await publishing
            await eventually(
                lambda: _attempts(worker) >= {(one, attempt) for one in ids(jobs) for attempt in (1, 2)},
                within=150,
            )
            await drained(consumer)
        await publisher.close()
        await consumer.close()
    assert {delivery.id for delivery in worker.finished} == set(ids(jobs))


def _once_again(delivery: Delivery) -> Again | None:
    one = Job.decode(delivery.body)
    return Again(one.model_copy(update={"attempt": 2}).encode(), 0.3) if one.attempt == 1 else None


def _attempts(worker: Working) -> set[tuple[str, int]]:
    return {(delivery.id, Job.decode(delivery.body).attempt) for delivery in worker.finished}
