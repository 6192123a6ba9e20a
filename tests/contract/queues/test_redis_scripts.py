"""Whatever happens in whatever order, the keys of a Redis queue agree, and no job goes missing."""

import asyncio
import random
import uuid
from dataclasses import dataclass, field

import pytest

from service.infra.queues.redis_scripts import Entry, Lease, Outcome, QueueScripts, Verdict
from tests.contract.queues.redis_broker import RedisBroker

STEPS = 400
OUTCOMES: tuple[Outcome, ...] = ("done", "again", "interrupted", "unstarted")


@dataclass
class Model:
    """What we did: when each job was published last, and which leases were handed out when."""

    published: dict[bytes, int] = field(default_factory=dict)
    owed: set[bytes] = field(default_factory=set)
    leases: dict[Lease, int] = field(default_factory=dict)


async def check(broker: RedisBroker) -> None:
    """Each job stands in one place, has a body, and has a lease if it runs; nothing else is there."""
    redis, name = broker.redis, broker.name
    delayed = set(await redis.zrange(name, 0, -1))
    ready = set(await redis.zrange(f"{name}:ready", 0, -1))
    running = set(await redis.zrange(f"{name}:running", 0, -1))
    bodies = {key.removeprefix(b"arq:job:") async for key in redis.scan_iter("arq:job:*", count=1000)}
    assert not delayed & ready
    assert not (delayed | ready) & running
    assert delayed | ready | running == bodies
    leases = await redis.hkeys(f"{name}:leases")  # type: ignore[misc]
    assert set(leases) == running
    again = await redis.hkeys(f"{name}:next")  # type: ignore[misc]
    assert set(again) <= running
    assert await redis.exists(f"{name}:wake") or not ready


@pytest.mark.parametrize("seed", range(4))
async def test_no_sequence_of_events_loses_a_job(redis_broker: RedisBroker, seed: int) -> None:
    chance = random.Random(seed)
    client = redis_broker.open().client
    patient = QueueScripts(client, name=redis_broker.name, lease=3600)
    hasty = QueueScripts(client, name=redis_broker.name, lease=0.01)
    ids = [str(uuid.UUID(int=chance.getrandbits(128))) for _ in range(30)]
    model = Model()
    for step in range(STEPS):
        match chance.choice(("publish", "take", "settle", "settle", "renew", "wait")):
            case "publish":
                chosen = chance.choices(ids, k=chance.randint(1, 6))
                delays = (-1.0, 0.0, 0.005, 0.02)
                await patient.publish(
                    [Entry(one, chance.randrange(5), chance.choice(delays), b"body") for one in chosen]
                )
                for one in chosen:
                    model.published[one.encode()] = step
                    model.owed.add(one.encode())
            case "take":
                scripts = chance.choice((patient, hasty))
                taken = await scripts.take(chance.randint(1, 6), f"{seed}:{step}")
                model.leases |= {lease: step for lease, _ in taken.jobs}
            case "settle" if model.leases:
                chosen_leases = chance.sample(sorted(model.leases, key=repr), k=min(3, len(model.leases)))
                # Whoever's lease was taken over is not heard.
                lost = await patient.renew(chosen_leases)
                outcome = chance.choice(OUTCOMES)
                await patient.settle(
                    [Verdict(lease, outcome, chance.choice((0.0, 0.01)), b"new") for lease in chosen_leases]
                )
                for lease in chosen_leases:
                    taken_at = model.leases[lease]
                    if chance.random() < 0.7:
                        del model.leases[lease]
                    if outcome == "done" and lease not in lost and model.published[lease.id] < taken_at:
                        model.owed.discard(lease.id)
            case "renew" if model.leases:
                await hasty.renew(list(model.leases))
            case _:
                await asyncio.sleep(0.005)
        await check(redis_broker)
    await everything_is_handed_out(redis_broker, patient, model)


async def everything_is_handed_out(broker: RedisBroker, scripts: QueueScripts, model: Model) -> None:
    # Every lease is given back, so that none of the long ones has to run out.
    await scripts.settle([Verdict(lease, "interrupted") for lease in model.leases])
    held = await broker.redis.hgetall(f"{broker.name}:leases")  # type: ignore[misc]
    forgotten = [Lease(id_, lease.split()[0].decode()) for id_, lease in held.items()]
    await scripts.settle([Verdict(lease, "interrupted") for lease in forgotten])
    await asyncio.sleep(0.1)
    taken = await scripts.take(1000, "last")
    assert {lease.id for lease, _ in taken.jobs} == model.owed
    await scripts.settle([Verdict(lease, "done") for lease, _ in taken.jobs])
    assert await scripts.stats() == (0, 0)
    await check(broker)
