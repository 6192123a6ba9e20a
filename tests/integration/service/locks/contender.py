"""One process that takes a lock again and again until its input ends.

Each time it enters, reads the counter, works, writes the counter it read plus one, and leaves. Every step is
a transaction of its own that carries the fencing token, and PostgreSQL refuses those with a lower one than it
has seen; a step that was accepted stands in the journal. Half of the work is done without giving way to the
event loop, so that nothing but the token can stop a late write.
"""

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from sqlalchemy import text

from observability import Telemetry, TelemetryConfig
from service.db.session import Database
from service.infra.locks import Lock, LockLostError, LockNotAcquiredError, Locks
from service.infra.redis import RedisStore, open_redis
from service.settings import DatabaseSettings, LockSettings, RedisSettings

NAME = "transaction:1"
TTL = 1.0
GUARDED = text(
    "UPDATE guarded SET fence = :fence, value = coalesce(:value, value)"
    " WHERE id = 1 AND fence <= :newest RETURNING id"
)
LAST_FENCE = 2**63 - 1


class LateError(Exception):
    """A later holder has been there."""


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def step(database: Database, action: str, fence: int, value: int | None, *, guarded: bool) -> None:
    """One guarded write and its line in the journal, in one transaction."""
    async with database.unit() as unit:
        changed = await unit.session.execute(
            GUARDED,
            {"fence": fence, "value": value, "newest": fence if guarded else LAST_FENCE},
        )
        if changed.first() is None:
            raise LateError
        await unit.session.execute(
            text("INSERT INTO journal (fence, action) VALUES (:fence, :action)"),
            {"fence": fence, "action": action},
        )


async def work(database: Database, lock: Lock, *, guarded: bool) -> None:
    await step(database, "enter", lock.fence, None, guarded=guarded)
    async with database.unit() as unit:
        value = await unit.session.scalar(text("SELECT value FROM guarded WHERE id = 1")) or 0
    say("holding", lock.fence)
    if random.random() < 0.5:
        time.sleep(random.uniform(0.02, 0.05))  # noqa: ASYNC251 - see above
    else:
        await asyncio.sleep(random.uniform(0.02, 0.05))
    await step(database, "write", lock.fence, value + 1, guarded=guarded)
    await step(database, "leave", lock.fence, None, guarded=guarded)


async def main(redis_url: str, postgres_url: str, *, guarded: bool) -> None:
    settings = RedisSettings.model_validate({"url": redis_url, "key_prefix": "t:"})
    telemetry = Telemetry.start(
        TelemetryConfig("contender", namespace="yardstick", log_sink="file", log_file=Path("/dev/null"))
    )
    client = open_redis(settings, name="contender")
    store = RedisStore(client, settings, telemetry)
    locks = Locks(store, LockSettings.model_validate({}), telemetry)
    database = Database(
        DatabaseSettings.model_validate({"url": postgres_url}),
        application="contender",
        metrics=telemetry.metrics,
        holder=f"contender@{os.getpid()}",
    )
    say("ready")
    ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    while not ended.done():
        try:
            async with locks.hold(NAME, ttl=TTL, retries=100, cancel=random.random() < 0.5) as lock:
                await work(database, lock, guarded=guarded)
        except LateError:
            say("refused")
        except LockLostError:
            say("lost")
        except LockNotAcquiredError:
            say("gave-up")
        await asyncio.sleep(random.uniform(0, 0.02))
    await database.close()
    await client.aclose()
    say("done")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], guarded=sys.argv[3:] != ["unguarded"]))
