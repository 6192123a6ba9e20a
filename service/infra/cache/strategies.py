"""Five ways to put a cache beside a source of truth. `write_behind` has the fifth, which needs a log.

| strategy      | read                      | write: order of effects                                  |
| ------------- | ------------------------- | -------------------------------------------------------- |
| cache-aside   | cache, else caller's load | entry gone; caller writes source; gone until a read      |
| read-through  | cache, else source        | none                                                     |
| write-around  | cache, else source        | entry gone; source; gone until a read                    |
| write-through | cache, else source        | entry gone; source; entry there; acknowledged            |
| write-behind  | pending, cache, source    | pending in Redis; acknowledged; source, some time later  |

In all of them, the source is committed when its `store` returns, and no reader gets a value older than the
last acknowledged write.
"""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Generic, Protocol, TypeVar

from service.infra.cache.filler import Load
from service.infra.cache.region import Region

T = TypeVar("T")


class Source(Protocol[T]):
    """Where the truth is."""

    async def load(self, key: str) -> T | None:
        """The value; None if there is no such thing."""

    async def store(self, key: str, value: T) -> None:
        """Write it; committed on return."""


class CacheAside(Generic[T]):
    """The caller knows the source, and brings what reads and what writes."""

    def __init__(self, region: Region[T]) -> None:
        self._region = region

    async def get(self, key: str, load: Load[T]) -> T | None:
        return await self._region.get(key, load)

    async def put(
        self, key: str, write: Callable[[], Awaitable[object]], *, tags: Iterable[str] = ()
    ) -> None:
        """Run `write`, which commits; entries with this key or these tags are gone before it and after it."""
        async with self._region.writing(key, tags=tags):
            await write()


class ReadThrough(Generic[T]):
    """The cache knows the source and reads it."""

    def __init__(self, region: Region[T], source: Source[T]) -> None:
        self._region = region
        self._source = source

    async def get(self, key: str) -> T | None:
        return await self._region.get(key, partial(self._source.load, key))


class WriteAround(ReadThrough[T]):
    """Writes go to the source alone: for values that are written more often than they are read."""

    async def put(self, key: str, value: T) -> None:
        async with self._region.writing(key):
            await self._source.store(key, value)


class WriteThrough(ReadThrough[T]):
    """Writes go to the source, then to the cache: for values that are read right after they are written.

    If two write the same key at the same time, neither value is cached; the next read loads the one that won.
    """

    async def put(self, key: str, value: T) -> None:
        async with self._region.writing(key) as write:
            await self._source.store(key, value)
            write.fill(value)
