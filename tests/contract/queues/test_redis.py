"""The `redis` engine beyond the contract: outages, a full server, leases, and what it leaves behind."""

import asyncio
import re
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from compose.native import Stack
from service.errors import UnavailableError
from service.infra.queues import redis_scripts
from service.infra.queues.interface import PRIORITIES, Again, Delivery, JobOptions, Priority, RefusedJobError
from service.infra.queues.redis import RedisQueue
from service.infra.queues.redis_scripts import QueueScripts, Verdict
from service.infra.redis import open_redis
from service.infra.redis.client import Pool
from service.settings import RedisSettings
from tests.contract.queues.harness import (
    LEASE,
    Working,
    drained,
    eventually,
    ids,
    job,
    numbered,
    published,
    victim,
)
from tests.contract.queues.redis_broker import RedisBroker


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Stack]:
    """A Redis that only this test has, and may stop."""
    with Stack(tmp_path / "stack", only=("redis",)) as stack:
        yield stack


@pytest.fixture
async def own_broker(own: Stack) -> AsyncIterator[RedisBroker]:
    broker = RedisBroker(own.endpoints()["redis"])
    yield broker
    await broker.close()


def scripts(broker: RedisBroker, lease: float = LEASE) -> QueueScripts:
    return QueueScripts(broker.open().client, name=broker.name, lease=lease)


@pytest.mark.parametrize("end", ["stop", "kill"])
async def test_jobs_survive_the_end_of_the_server(own: Stack, own_broker: RedisBroker, end: str) -> None:
    queue = own_broker.open()
    jobs, later = numbered(500), numbered(5, delay=3600)
    await published(queue, *jobs, *later)
    await asyncio.to_thread(getattr(own, end), "redis")
    with pytest.raises(UnavailableError):
        await queue.stats()
    await asyncio.to_thread(own.start, "redis")
    assert (await queue.stats()).delayed == 5
    async with Working(queue) as worker:
        await worker.ran(500)
    assert worker.order == ids(jobs)


async def test_a_worker_rides_out_an_outage_longer_than_the_lease(
    own: Stack, own_broker: RedisBroker
) -> None:
    queue = own_broker.open()
    jobs = numbered(4)
    async with Working(queue, concurrency=3, gated=True) as worker:
        await published(queue, *jobs[:2])
        await worker.has_started(2)
        await asyncio.to_thread(own.stop, "redis")
        await asyncio.sleep(LEASE + 1)
        assert worker.running == 2
        await asyncio.to_thread(own.start, "redis")
        await published(queue, jobs[2])
        await worker.has_started(3)
        await asyncio.to_thread(own.kill, "redis")
        # What ends now is told when the server is back.
        worker.gate.set()
        await worker.ran(3)
        await asyncio.to_thread(own.start, "redis")
        await drained(queue)
        await published(queue, jobs[3])
        await worker.ran(4)
        await drained(queue)
    assert worker.times == Counter(ids(jobs))


async def test_a_full_server_takes_no_job_and_hands_out_those_it_has(
    own: Stack, own_broker: RedisBroker
) -> None:
    queue = own_broker.open()
    jobs = numbered(50)
    await published(queue, *jobs)
    await own_broker.redis.config_set("maxmemory", 1)
    with pytest.raises(UnavailableError):
        await queue.publish([job()])
    answers: dict[str, Again | None] = {}

    def once_more(delivery: Delivery) -> Again | None:
        return answers.pop(delivery.id, None)

    answers[str(jobs[0].id)] = Again(jobs[0].encode(), 0.1)
    async with Working(queue, concurrency=5, answer=once_more) as worker:
        await worker.ran(51)
        await drained(queue)
    assert worker.times == Counter(ids([*jobs, jobs[0]]))


async def test_a_server_that_is_silent_is_unavailable_before_the_clients_retries_are_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_scripts, "_PATIENCE_SECONDS", 1.0)
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
        settings = RedisSettings.model_validate({"url": url, "command_timeout_seconds": 60})
        client = open_redis(settings, name="silent")
        queue = RedisQueue(client, name="silent", poll=1, lease=LEASE)
        async with asyncio.timeout(30):
            with pytest.raises(UnavailableError):
                await queue.publish([job()])
            with pytest.raises(UnavailableError):
                await queue.ping()
        await client.aclose()


async def test_a_job_too_large_is_refused_and_the_others_are_not(redis_broker: RedisBroker) -> None:
    queue = redis_broker.open(max_bytes=2000)
    first, large, last = job(), job(payload={"text": "x" * 2000}), job()
    outcome = await queue.publish([first, large, last])
    assert outcome[0] is outcome[2] is None
    assert isinstance(outcome[1], RefusedJobError)
    assert "at most 2000" in str(outcome[1])
    async with Working(queue) as worker:
        await worker.ran(2)
        await drained(queue)
    assert worker.order == ids([first, last])


async def test_many_large_jobs_are_taken_in_portions(redis_broker: RedisBroker) -> None:
    queue = redis_broker.open()
    jobs = numbered(25, meta={"text": "x" * 1_000_000})
    await published(queue, *jobs)
    taken = await scripts(redis_broker).take(25, "portion")
    assert len(taken.jobs) == 8
    async with Working(queue, concurrency=25) as worker:
        await worker.ran(25)
        await drained(queue)
    assert worker.times == Counter(ids(jobs))


async def test_a_worker_that_lost_its_lease_has_no_say_any_more(redis_broker: RedisBroker) -> None:
    queue = redis_broker.open()
    one = job()
    await published(queue, one)
    slow = scripts(redis_broker, lease=0.5)
    ((stale, _),) = (await slow.take(1, "slow")).jobs
    await asyncio.sleep(1.5)
    quick = scripts(redis_broker, lease=600)
    ((held, delivery),) = (await quick.take(1, "quick")).jobs
    assert delivery == Delivery(str(one.id), one.encode(), redelivered=True)
    assert await slow.renew([stale]) == [stale]
    for outcome in ("done", "again", "interrupted", "unstarted"):
        await slow.settle([Verdict(stale, outcome, 0.0, b"stale")])
    assert (await quick.take(1, "quick2")).jobs == []
    assert await quick.renew([held]) == []
    await quick.settle([Verdict(held, "done")])
    assert (await queue.stats()).waiting == 0


async def test_a_lease_that_ran_out_can_be_renewed_until_somebody_takes_the_job(
    redis_broker: RedisBroker,
) -> None:
    await published(redis_broker.open(), job())
    mine = scripts(redis_broker, lease=0.5)
    ((lease, _),) = (await mine.take(1, "mine")).jobs
    await asyncio.sleep(1)
    assert await scripts(redis_broker, lease=600).renew([lease]) == []
    assert (await mine.take(1, "other")).jobs == []


async def test_a_verdict_told_twice_counts_once(redis_broker: RedisBroker) -> None:
    one = job()
    await published(redis_broker.open(), one)
    told = scripts(redis_broker)
    ((lease, _),) = (await told.take(1, "first")).jobs
    for _ in range(2):
        await told.settle([Verdict(lease, "again", 0.0, b"new")])
    ((second, delivery),) = (await told.take(5, "second")).jobs
    assert delivery == Delivery(str(one.id), b"new")
    await told.settle([Verdict(lease, "done")])
    assert await told.renew([second]) == []


async def test_a_worker_that_stood_still_does_not_undo_what_another_did(redis_broker: RedisBroker) -> None:
    jobs = numbered(3)
    async with victim(redis_broker, concurrency=3) as (process, started):
        await published(redis_broker.open(), *jobs)
        await eventually(lambda: len(started) == 3)
        process.send_signal(signal.SIGSTOP)
        async with Working(redis_broker.open(), concurrency=3, gated=True) as worker:
            await worker.has_started(3)
            process.send_signal(signal.SIGCONT)
            await asyncio.sleep(LEASE + 1)
            assert len(started) == 3
            worker.gate.set()
            await worker.ran(3)
            await drained(worker.queue)
    assert worker.times == Counter(ids(jobs))


async def test_what_arq_enqueues_itself_is_run(redis_broker: RedisBroker) -> None:
    queue = redis_broker.open()
    now, later = job(), job()
    arq = queue.client
    await arq.enqueue_job("run", later.encode(), _job_id=str(later.id), _defer_by=2)
    await arq.enqueue_job("run", now.encode(), _job_id=str(now.id))
    urgent, bulk = job(priority="high"), job(priority="low")
    await published(queue, bulk, urgent)
    async with Working(queue) as worker:
        await worker.ran(4)
        await drained(queue)
    assert worker.order == ids([urgent, now, bulk, later])


async def test_jobs_due_in_the_same_moment_keep_urgency_and_order(redis_broker: RedisBroker) -> None:
    queue = redis_broker.open()
    due = datetime.now(UTC) + timedelta(seconds=4)
    names: list[Priority] = [*reversed(PRIORITIES)]
    jobs = [job(due_at=due, options=JobOptions(priority=name)) for name in names for _ in range(40)]
    await published(queue, *jobs)
    assert (await queue.stats()).delayed == 200
    async with Working(queue) as worker:
        await worker.ran(200)
    assert worker.order == ids(sorted(jobs, key=lambda one: PRIORITIES.index(one.options.priority)))


async def test_a_body_that_nothing_points_to_is_no_hindrance(redis_broker: RedisBroker) -> None:
    queue = redis_broker.open()
    one = job()
    await published(queue, one)
    await redis_broker.redis.delete(f"{queue.name}:ready")
    await published(queue, one)
    async with Working(queue) as worker:
        await worker.ran(1)
        await drained(queue)


async def test_an_id_without_a_body_reaches_the_runner(redis_broker: RedisBroker) -> None:
    queue = redis_broker.open()
    gone, hash_ = numbered(2)
    await published(queue, gone, hash_)
    await redis_broker.redis.delete(f"arq:job:{gone.id}", f"arq:job:{hash_.id}")
    await redis_broker.redis.hset(f"arq:job:{hash_.id}", "what", "ever")  # type: ignore[misc]
    await redis_broker.redis.zadd(queue.name, {b"\xff\xfe": 0})
    async with Working(queue) as worker:
        await worker.ran(3)
        await drained(queue)
    assert worker.started[:2] == [Delivery(str(gone.id), b""), Delivery(str(hash_.id), b"")]


async def test_an_idle_worker_hardly_asks_and_holds_no_connection_of_the_pool(
    redis_broker: RedisBroker,
) -> None:
    queue = redis_broker.open(poll_seconds=60)
    async with Working(queue) as worker:
        await published(queue, job())
        await worker.ran(1)
        await drained(queue)
        before = await commands(redis_broker)
        await asyncio.sleep(3)
        assert await commands(redis_broker) - before <= 6
        assert isinstance(queue.client.connection_pool, Pool)
        assert queue.client.connection_pool.used == 0
        await published(queue, job())
        await worker.ran(2, within=10)


async def test_a_worker_that_is_paused_as_it_is_woken_wakes_another(redis_broker: RedisBroker) -> None:
    queue = redis_broker.open(poll_seconds=60)
    async with Working(queue) as paused, Working(redis_broker.open(poll_seconds=60)) as other:
        for _ in range(30):
            # Whoever waits for the longest time is woken: let it be the one that we pause.
            await other.queue.pause()
            await asyncio.sleep(0.05)
            await other.queue.resume()
            await asyncio.sleep(0.05)
            await published(other.queue, job())
            await queue.pause()
            await drained(queue)
            await queue.resume()
    assert len(paused.finished) + len(other.finished) == 30


async def test_a_worker_that_is_stopped_as_it_is_woken_wakes_another(redis_broker: RedisBroker) -> None:
    async with Working(redis_broker.open(poll_seconds=60)) as other:
        for _ in range(15):
            async with Working(redis_broker.open(poll_seconds=60)) as stopped:
                await asyncio.sleep(0.05)
                await published(other.queue, job())
                await stopped.stop(5)
            await drained(other.queue)


async def test_a_paused_worker_asks_for_nothing(redis_broker: RedisBroker) -> None:
    queue = redis_broker.open()
    await queue.pause()
    await published(queue, job())
    async with Working(queue) as worker:
        await asyncio.sleep(1)
        before = await commands(redis_broker)
        await asyncio.sleep(1)
        assert await commands(redis_broker) - before <= 4
        assert worker.started == []


async def test_an_idle_worker_hears_of_a_job_that_is_due_sooner_than_those_it_knew(
    redis_broker: RedisBroker,
) -> None:
    queue = redis_broker.open(poll_seconds=60)
    sooner = job(delay=2)
    async with Working(queue) as worker:
        await published(queue, job(delay=50))
        await asyncio.sleep(1)
        await published(queue, sooner)
        await worker.ran(1, within=20)
    assert worker.order == [str(sooner.id)]


async def test_an_idle_worker_hears_of_a_job_that_was_put_back(redis_broker: RedisBroker) -> None:
    queue = redis_broker.open(poll_seconds=60, lease_seconds=60)
    answers = iter([Again(b"second", 1.0), None])
    async with Working(queue, concurrency=3, gated=True, answer=lambda _: next(answers)) as worker:
        await published(queue, job())
        await worker.has_started(1)
        await asyncio.sleep(1)
        worker.gate.set()
        await worker.ran(2, within=15)


async def test_an_idle_worker_whose_wake_up_call_was_lost_looks_after_the_poll(
    redis_broker: RedisBroker,
) -> None:
    queue = redis_broker.open(poll_seconds=2)
    async with Working(queue) as worker:
        await asyncio.sleep(1)
        one = job()
        # As if whoever had been woken died before it looked.
        await redis_broker.redis.set(f"arq:job:{one.id}", one.encode())
        await redis_broker.redis.zadd(f"{queue.name}:ready", {str(one.id): 1})
        await worker.ran(1, within=10)


async def test_one_call_wakes_as_many_workers_as_there_is_work_for(redis_broker: RedisBroker) -> None:
    queues = [redis_broker.open(poll_seconds=60) for _ in range(4)]
    workers = [Working(queue, concurrency=5, gated=True) for queue in queues]
    for worker in workers:
        await worker.__aenter__()
    await asyncio.sleep(1)
    await published(redis_broker.open(), *numbered(20))
    await eventually(lambda: [worker.running for worker in workers] == [5] * 4, within=10)
    for worker in workers:
        worker.gate.set()
        await worker.ran(5)
        await worker.__aexit__(None, None, None)


async def test_nothing_stays_behind(redis_broker: RedisBroker) -> None:
    queue = redis_broker.open()
    await published(queue, *numbered(20), *numbered(5, delay=1))
    async with Working(queue, concurrency=4) as worker:
        await worker.ran(25)
        await drained(queue)
    keys = {key.decode() async for key in redis_broker.redis.scan_iter()}
    assert keys <= {f"{queue.name}:sequence", f"{queue.name}:wake"}


async def test_two_queues_on_one_server_do_not_meet(redis_broker: RedisBroker) -> None:
    mine = redis_broker.open()
    other = RedisQueue(mine.client, name=f"contract:{uuid.uuid4().hex}", poll=0.05, lease=LEASE)
    await published(other, job())
    async with Working(mine) as worker:
        await asyncio.sleep(1)
        assert worker.started == []
    assert (await other.stats()).waiting == 1


async def commands(broker: RedisBroker) -> int:
    """Commands that the server has seen so far, those of this question not counted."""
    stats = await broker.redis.info("commandstats")
    return sum(
        figures["calls"]
        for name, figures in stats.items()
        if re.fullmatch(r"cmdstat_(evalsha|blpop|ping|hello|auth|select|client.*)", name)
    )
