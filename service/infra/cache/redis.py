"""The store in Redis, over the process's `RedisStore`.

Written here and not taken from a library. cashews 7.6 and aiocache 0.12, the best-kept ones, write an entry
and its tags in separate commands, and neither has leases or versions: an old value read before a change is
stored after it. With those added in scripts, and pools, timeouts and faults coming from our own Redis
package, what a library would still do for us is format a key.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from service.infra.cache import scripts
from service.infra.cache.interface import Change, Found, Keep, Kept, Look, Moment
from service.infra.cache.names import Names
from service.infra.redis import RedisStore, glob_escape

CLOCK = "cache:clock"
_COUNTS = "cache:counts"
_BATCH = 100
_BATCH_BYTES = 1_000_000


class RedisCacheStore:
    """A `Store`. Its faults are `RedisFault`."""

    def __init__(self, redis: RedisStore, *, lease: float, hold: float) -> None:
        self._redis = redis
        self._lease_ms = round(lease * 1000)
        self._hold_ms = round(hold * 1000)

    async def look(self, domain: str, key: str, token: str) -> Look:
        (found,) = await self._redis.run(scripts.LOOK, [CLOCK], (domain, token, self._lease_ms, key))
        return _look(found)

    async def look_many(self, domain: str, keys: Sequence[str]) -> list[Look]:
        looks: list[Look] = []
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            looks += map(_look, await self._redis.run(scripts.LOOK, [CLOCK], (domain, "", 0, *batch)))
        return looks

    async def keep(self, *values: Keep) -> list[Kept]:
        kept: list[Kept] = []
        for batch in _batches(values):
            arguments: list[str | bytes | int] = []
            for value in batch:
                arguments += (value.domain, value.key, value.token, value.mark, int(value.store), value.value)
                arguments += (
                    round(value.ttl * 1000),
                    round(value.fresh * 1000),
                    len(value.tags),
                    *value.tags,
                )
            replies = await self._redis.run(scripts.KEEP, [CLOCK], arguments)
            kept += (Kept(reply.decode()) for reply in replies)
        return kept

    async def discard(self, domain: str, key: str, mark: int) -> None:
        await self._redis.run(scripts.DISCARD, [CLOCK], (domain, key, mark))

    async def mark(self) -> int:
        return int(await self._redis.run(scripts.MARK, [CLOCK]))

    async def change(self, moment: Moment, names: Names, token: str) -> Change:
        keys = [part for key in names.keys for part in key]
        header: tuple[str | int, ...] = (moment, token, self._hold_ms, len(names.keys))
        sole, mark = await self._redis.run(scripts.CHANGE, [CLOCK], (*header, *keys, *names.tags))
        return Change(bool(sole), int(mark))

    async def evict(self, domain: str, most: int) -> int:
        deleted, batch = 0, []
        async for name in self._redis.scan(glob_escape(f"cache:e:{domain}:") + "*"):
            batch.append(name)
            if len(batch) == _BATCH or deleted + len(batch) >= most:
                deleted += await self._redis.delete(*batch)
                batch = []
                if deleted >= most:
                    return deleted
        return deleted + (await self._redis.delete(*batch) if batch else 0)

    async def memory(self) -> float | None:
        used, largest = map(int, await self._redis.run(scripts.MEMORY, [CLOCK]))
        return used / largest if largest else None

    async def once(self, name: str, seconds: float) -> bool:
        return await self._redis.set_if_absent(f"cache:once:{name}", secrets.token_hex(4), ttl=seconds)

    async def add_counts(self, counts: Mapping[str, int]) -> None:
        pipe = self._redis.pipeline(atomic=True)
        for name, count in counts.items():
            pipe.hincr(_COUNTS, name, count)
        await pipe.execute()

    async def counts(self) -> Mapping[str, int]:
        return {name: int(count) for name, count in (await self._redis.hgetall(_COUNTS)).items()}

    async def ping(self) -> None:
        await self._redis.ping()


def _look(reply: Sequence[Any]) -> Look:
    found, value, mark, holder, corrupt = reply
    return Look(Found(found.decode()), value, int(mark), holder.decode(), bool(corrupt))


def _batches(values: Sequence[Keep]) -> Iterator[list[Keep]]:
    """Up to 100 values or about 1 MB each: a script holds up everybody else while it runs."""
    batch: list[Keep] = []
    size = 0
    for value in values:
        if batch and (len(batch) == _BATCH or size + len(value.value) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(value)
        size += len(value.value)
    if batch:
        yield batch
