"""Many entries of a domain in few round trips."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Generic, TypeVar

from service.infra.cache.errors import BulkTooLargeError, CacheUnavailableError, CorruptEntryError
from service.infra.cache.filler import Filler, Tags
from service.infra.cache.interface import Found, Look
from service.infra.cache.names import plain

T = TypeVar("T")
LoadMany = Callable[[list[str]], Awaitable[Mapping[str, T]]]
"""Reads many values; a key that is left out does not exist."""


class Bulk(Generic[T]):
    """Up to CACHE_BULK_LIMIT keys at a time. Leases are for single keys: who misses the same ones together
    loads them each, and the races with changes are closed as everywhere.
    """

    def __init__(self, filler: Filler[T]) -> None:
        self._filler = filler
        self._parts = filler.parts
        self._domain = filler.domain.name

    async def get(
        self, keys: Iterable[str], load: LoadMany[T] | None = None, *, tags: Tags[T] = ()
    ) -> dict[str, T]:
        """The values there are, by key; with `load`, what is missing is read in one call and kept.

        Raises:
            BulkTooLargeError: too many keys. CacheKeyError: an empty one. Whatever `load` raises.
        """
        wanted = self._names(keys)
        names = list(wanted)
        if not names:
            return {}
        try:
            # Taken first: everything that is read below is read after it.
            mark = await self._parts.guard.run(self._parts.store.mark)
            looks = await self._parts.guard.run(self._parts.store.look_many, self._domain, names)
        except CacheUnavailableError:
            self._parts.signals.read(self._domain, "error", len(names))
            return dict(await self._load(load, list(wanted.values())))
        found: dict[str, T] = {}
        missing: list[str] = []
        for name, look in zip(names, looks, strict=True):
            await self._sort(name, wanted[name], look, found, missing)
        loaded = await self._load(load, [wanted[name] for name in missing])
        if load is not None and missing:
            await self._filler.keep_many({name: loaded.get(wanted[name]) for name in missing}, mark, tags)
        return found | dict(loaded)

    async def mark(self) -> int | None:
        """Take it before reading from the source what `set` is to store; None while Redis is away."""
        try:
            return await self._parts.guard.run(self._parts.store.mark)
        except CacheUnavailableError:
            return None

    async def set(self, values: Mapping[str, T], mark: int | None, *, tags: Tags[T] = ()) -> int:
        """Store values that were read after `mark` was taken; gives how many are stored.

        Those that have changed since, or are being written, are not; without a mark, none.

        Raises:
            BulkTooLargeError, CacheKeyError. EntryTooLargeError, UnencodableError: nothing is stored then.
        """
        wanted = self._names(values)
        entries = [self._filler.entry(name, mark or 0, values[key], tags) for name, key in wanted.items()]
        return 0 if mark is None else await self._filler.store(entries)

    def _names(self, keys: Iterable[str]) -> dict[str, str]:
        wanted = {plain(key): key for key in keys}
        if len(wanted) > self._parts.bulk_limit:
            raise BulkTooLargeError(f"{len(wanted)} keys, at most {self._parts.bulk_limit}")
        return wanted

    async def _load(self, load: LoadMany[T] | None, keys: list[str]) -> Mapping[str, T]:
        if load is None or not keys:
            return {}
        return await self._filler.timed(lambda: load(keys))

    async def _sort(self, name: str, key: str, look: Look, found: dict[str, T], missing: list[str]) -> None:
        signals = self._parts.signals
        if look.corrupt:
            signals.corrupt(self._domain)
        if look.found is Found.HIT:
            try:
                value = self._filler.decode(name, look)
            except CorruptEntryError:
                with suppress(CacheUnavailableError):
                    await self._parts.guard.run(self._parts.store.discard, self._domain, name, look.mark)
            else:
                signals.read(self._domain, "negative" if value is None else "hit")
                if value is not None:
                    found[key] = value
                return
        signals.read(self._domain, "miss")
        missing.append(name)
