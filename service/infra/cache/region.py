"""One domain's entries of one type: what features use."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Generic, TypeVar

from observability import get_logger
from service.infra.cache.bulk import Bulk
from service.infra.cache.domains import Domain
from service.infra.cache.errors import CacheUnavailableError, CorruptEntryError
from service.infra.cache.filler import Filler, Load, Loading, Parts, Tags, always
from service.infra.cache.flights import Landed
from service.infra.cache.interface import Found, Look, Moment
from service.infra.cache.names import Names, plain
from service.infra.cache.signals import Outcome

log = get_logger(__name__)

T = TypeVar("T")
_PAUSES = (0.005, 0.05)


class Write(Generic[T]):
    """A write under way: `fill` gives the value that readers may have once it is done."""

    def __init__(self) -> None:
        self.filled = False
        self.value: T | None = None

    def fill(self, value: T) -> None:
        self.filled, self.value = True, value


class Region(Generic[T]):
    """Reads and changes. Redis being away raises nothing here: reads go to the source, changes are owed."""

    def __init__(self, domain: Domain, kind: type[T], parts: Parts) -> None:
        self.domain = domain
        self._parts = parts
        self._filler: Filler[T] = Filler(domain, kind, parts)
        self.many: Bulk[T] = Bulk(self._filler)

    async def get(
        self, key: str, load: Load[T], *, tags: Tags[T] = (), keep: Callable[[T], bool] = always
    ) -> T | None:
        """The value, from the cache or loaded; None if there is no such thing.

        However many ask, in however many processes, one loads and the others wait, for CACHE_LEASE_SECONDS at
        most. What is given is never older than the last change that was told before the call.

        Args:
            key: text of any kind.
            load: reads the value.
            tags: by which it can be invalidated together with others.
            keep: whether a value may be cached; one that may not is still shared with those who wait for it.

        Raises:
            CacheKeyError: the key is empty. Whatever `load` raises, also to those who share it.
        """
        name, loading = plain(key), Loading(load, tags, keep)
        deadline, pause = time.monotonic() + self._parts.lease, _PAUSES[0]
        while True:
            token = self._parts.token()
            try:
                look = await self._parts.guard.run(self._parts.store.look, self.domain.name, name, token)
            except CacheUnavailableError:
                return await self._from_source("error", name, load)
            landed = await self._answer(name, token, look, loading)
            if landed is not None:
                return landed.value
            # A write that waits for its source and cannot be read has no mark, and stays.
            stays = look.found is Found.HELD or (look.found is Found.HIT and not look.mark)
            if stays or time.monotonic() > deadline:
                return await self._from_source("bypass", name, load)
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _PAUSES[1])

    async def invalidate(self, *keys: str, tags: Iterable[str] = ()) -> None:
        """After this nothing that was read before it is served for these keys, nor entries with these tags.

        Call it after the commit. `writing` is better: it leaves no moment between the two.
        """
        await self._parts.changes.tell(Moment.ONCE, Names.of(self.domain.name, keys, tags))

    @asynccontextmanager
    async def writing(self, *keys: str, tags: Iterable[str] = ()) -> AsyncIterator[Write[T]]:
        """Around a write to the source, its commit included: from before it until after it nothing is cached.

        So no reader finds the old value once the write is committed, and a process that dies in between
        leaves none behind. With `fill`, one key and no other writer at the same time, the new value is cached
        at the end. The block may last CACHE_HOLD_SECONDS.
        """
        tags = tuple(tags)
        names, token = Names.of(self.domain.name, keys, tags), self._parts.token()
        await self._parts.changes.tell(Moment.BEGIN, names, token)
        write: Write[T] = Write()
        try:
            yield write
        except BaseException:
            # It may have been committed all the same: only the source knows.
            write.filled = False
            raise
        finally:
            change = await asyncio.shield(self._parts.changes.tell(Moment.END, names, token))
            if change is not None and change.sole and write.filled and len(names.keys) == 1:
                await self._filler.keep(names.keys[0][1], change.mark, write.value, tags)

    async def _answer(self, name: str, token: str, look: Look, loading: Loading[T]) -> Landed[T] | None:
        """What the look leads to; None if it is to be repeated."""
        if look.corrupt:
            self._parts.signals.corrupt(self.domain.name)
        if look.found in (Found.HIT, Found.REFRESH):
            try:
                value = self._filler.decode(name, look)
            except CorruptEntryError:
                if look.found is Found.REFRESH:
                    return await self._lead(name, token, look.mark, loading)
                with suppress(CacheUnavailableError):
                    await self._parts.guard.run(self._parts.store.discard, self.domain.name, name, look.mark)
                return None
            if look.found is Found.REFRESH:
                self._refresh(name, token, look.mark, loading)
            self._parts.signals.read(self.domain.name, "negative" if value is None else "hit")
            return Landed(value, current=True)
        if look.found is Found.LEASE:
            return await self._lead(name, token, look.mark, loading)
        return await self._shared(look.holder)

    async def _lead(self, name: str, token: str, mark: int, loading: Loading[T]) -> Landed[T]:
        """Load for everybody. The load goes on when the request that began it is cancelled."""
        self._parts.signals.read(self.domain.name, "miss")
        return await asyncio.shield(
            self._parts.flights.start(token, self._filler.fill(name, token, mark, loading))
        )

    async def _shared(self, token: str) -> Landed[T] | None:
        """What the load with this lease gives, if it runs in this process and is current."""
        flight = self._parts.flights.join(token)
        if flight is None:
            return None
        landed: Landed[T] = await asyncio.shield(flight)
        if not landed.current:
            return None
        self._parts.signals.read(self.domain.name, "shared")
        return landed

    async def _from_source(self, outcome: Outcome, name: str, load: Load[T]) -> T | None:
        self._parts.signals.read(self.domain.name, outcome)
        return await self._parts.flights.fresh(f"{self.domain.name}:{name}", lambda: self._filler.timed(load))

    def _refresh(self, name: str, token: str, mark: int, loading: Loading[T]) -> None:
        """Renew an entry near its end while it is still served."""

        async def refresh() -> None:
            try:
                await self._filler.fill(name, token, mark, loading)
            except Exception as error:  # noqa: BLE001 - whoever asks after the entry's end gets it
                log.warning("cache.refresh_failed", domain=self.domain.name, reason=type(error).__name__)

        self._parts.flights.keep(asyncio.create_task(refresh(), name="cache-refresh"))
