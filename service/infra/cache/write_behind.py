"""Write-behind: a write is acknowledged when Redis has it, and goes to its source afterwards."""

import asyncio
from functools import partial
from typing import Generic, Protocol, TypeVar

from observability import get_logger
from service.errors import UnavailableError
from service.infra.cache.codec import Codec
from service.infra.cache.errors import (
    CacheKeyError,
    CacheUnavailableError,
    CorruptEntryError,
    EntryTooLargeError,
)
from service.infra.cache.filler import Parts
from service.infra.cache.names import plain
from service.infra.cache.region import Region
from service.infra.cache.write_log import Pending, RedisWriteLog
from service.infra.redis import RedisFault

log = get_logger(__name__)

T = TypeVar("T")
LEASE_SECONDS = 30.0
RETRY_SECONDS = 5.0
POLL_SECONDS = 0.5
_BATCH = 100


class VersionedSource(Protocol[T]):
    """A source that can tell an old write from a new one."""

    async def load(self, key: str) -> T | None:
        """The value; None if there is no such thing."""

    async def store(self, key: str, value: T, version: int) -> None:
        """Write it, unless what is there has this version or a higher one. It may come twice, and late."""


class WriteBehind(Generic[T]):
    """Many writes of a key become one of its source; reads see the last acknowledged one at once.

    What an acknowledgement is worth: the write is in Redis, from where any process hands it to the source; it
    is forgotten when the source has it. A killed process loses nothing. What Redis loses is lost: with the
    configuration in `compose/config/redis` (`appendfsync everysec`), about the last second before a crash of
    the machine, and nothing at a crash of Redis alone; with a failover, what the replica had not received;
    with an evicting `maxmemory-policy`, anything. A value that its source never takes waits for ever, tried
    every 5 s.

    While Redis is away, `put` raises UnavailableError, and `get` reads the source, which may lack what waits.
    """

    def __init__(
        self,
        region: Region[T],
        kind: type[T],
        source: VersionedSource[T],
        writes: RedisWriteLog,
        parts: Parts,
    ) -> None:
        self._region = region
        self._domain = region.domain.name
        self._codec: Codec[T] = Codec(kind)
        self._source = source
        self._log = writes
        self._parts = parts

    async def get(self, key: str) -> T | None:
        return await self._region.get(key, partial(self._source.load, key))

    async def put(self, key: str, value: T) -> int:
        """Acknowledge a write; gives its version.

        Raises:
            UnavailableError: Redis does not take it, or too many writes wait.
            CacheKeyError, EntryTooLargeError, UnencodableError: before anything is written.
        """
        if plain(key) != key:
            raise CacheKeyError("a key of write-behind is up to 200 letters, digits and _.:@/%+-")
        raw = self._codec.encode(value)
        if not raw or len(raw) > self._parts.entry_limit:
            raise EntryTooLargeError(f"{len(raw)} bytes, at most {self._parts.entry_limit}")
        try:
            version = await self._parts.guard.run(self._log.put, key, raw)
        except CacheUnavailableError as error:
            raise UnavailableError("The write cannot be taken now") from error
        if version is None:
            raise UnavailableError("Too many writes wait for their source")
        return version

    async def flush(self) -> int:
        """Hand over what is due, up to 100 writes; gives how many the source has now. Raises RedisFault."""
        claimed = await self._log.claim(_BATCH, LEASE_SECONDS)
        done = 0
        for write in claimed:
            done += await self._hand_over(write)
        self._parts.signals.pending.labels(self._domain).set(await self._log.waiting())
        return done

    async def run(self) -> None:
        """Hand over until cancelled. Any number of processes may do so."""
        while True:
            try:
                while await self.flush():
                    pass
            except RedisFault as fault:
                log.warning("cache.flush_failed", domain=self._domain, reason=str(fault))
            await asyncio.sleep(POLL_SECONDS)

    async def _hand_over(self, write: Pending) -> bool:
        flushed = self._parts.signals.flushed
        try:
            await self._source.store(write.key, self._codec.decode(write.value), write.version)
        except CorruptEntryError as error:
            reason = f"cannot be read: {error}"
        except Exception as error:  # noqa: BLE001 - whatever a source raises, the others are handed over
            reason = type(error).__name__
        else:
            await self._log.done(write)
            flushed.labels(self._domain, "stored").inc()
            return True
        log.error("cache.write_not_taken", domain=self._domain, key=write.key, reason=reason)
        flushed.labels(self._domain, "failed").inc()
        await self._log.later(write, RETRY_SECONDS)
        return False
