"""Acknowledged writes that wait for their source, in Redis."""

from dataclasses import dataclass

from service.infra.cache import scripts
from service.infra.cache.redis import CLOCK
from service.infra.redis import RedisStore


@dataclass(frozen=True, slots=True)
class Pending:
    """One write. Versions of a key only grow; a write supersedes the one that waits for the same key."""

    key: str
    version: int
    value: bytes


class RedisWriteLog:
    """The writes of one domain that wait. Every reader sees them before anything else. Faults are
    `RedisFault`.
    """

    def __init__(self, redis: RedisStore, domain: str, *, most: int) -> None:
        self._redis = redis
        self._domain = domain
        self._most = most

    async def put(self, key: str, value: bytes) -> int | None:
        """Its version; None if `most` keys wait already."""
        arguments = (self._domain, key, value, self._most)
        return int(await self._redis.run(scripts.PUT, [CLOCK], arguments)) or None

    async def claim(self, most: int, lease: float) -> list[Pending]:
        """Those that are due. Who does not end them within `lease` seconds leaves them to others."""
        arguments = (self._domain, round(lease * 1000), most)
        found = await self._redis.run(scripts.CLAIM, [CLOCK], arguments)
        return [Pending(key.decode(), int(version), value) for key, version, value in found]

    async def done(self, write: Pending) -> bool:
        """The source has it. False if a newer write of the key waits."""
        arguments = (self._domain, write.key, write.version)
        return bool(await self._redis.run(scripts.DONE, [CLOCK], arguments))

    async def later(self, write: Pending, pause: float) -> None:
        """The source did not take it: due again after `pause` seconds."""
        await self._redis.run(scripts.LATER, [CLOCK], (self._domain, write.key, round(pause * 1000)))

    async def waiting(self) -> int:
        return await self._redis.hlen(f"cache:w:{self._domain}")
