"""Loading and keeping: what happens between a miss and a stored entry."""

import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from observability import get_logger
from service.infra.cache.changes import Changes
from service.infra.cache.codec import Codec
from service.infra.cache.domains import REFRESH_SHARE, Domain
from service.infra.cache.errors import (
    CacheUnavailableError,
    CorruptEntryError,
    EntryTooLargeError,
    UnencodableError,
)
from service.infra.cache.flights import Flights, Landed
from service.infra.cache.guard import Guard
from service.infra.cache.interface import Keep, Kept, Look, Store
from service.infra.cache.names import domain_tag, plain
from service.infra.cache.signals import CacheSignals, Refusal

log = get_logger(__name__)

T = TypeVar("T")
R = TypeVar("R")
Load = Callable[[], Awaitable[T | None]]
"""Reads one value from its source; None: there is no such thing. It runs in a task of its own, which may
outlive the request: it opens the unit of work that it reads with, and takes no one else's."""
Tags = Iterable[str] | Callable[[T], Iterable[str]]
"""Tags of an entry; called with the value when they depend on it."""

_CURRENT = (Kept.KEPT, Kept.VERIFIED, Kept.FULL)
_REASONS: Mapping[Kept, Refusal] = {
    Kept.CHANGED: "changed",
    Kept.HELD: "held",
    Kept.OLDER: "older",
    Kept.FULL: "full",
}


def always(_value: object) -> bool:
    return True


@dataclass(frozen=True)
class Loading(Generic[T]):
    """How a value is had: what reads it, its tags, and whether it may be cached."""

    load: Load[T]
    tags: Tags[T] = ()
    keep: Callable[[T], bool] = always


@dataclass(frozen=True, slots=True)
class Parts:
    """What the regions of a cache share. `full`: whether a domain is not to be filled, for want of memory."""

    store: Store
    guard: Guard
    changes: Changes
    flights: Flights
    signals: CacheSignals
    instance: str
    numbers: "itertools.count[int]"
    lease: float
    entry_limit: int
    bulk_limit: int
    full: Callable[[Domain], bool]

    def token(self) -> str:
        """A name for one attempt, unlike all others."""
        return f"{self.instance}.{next(self.numbers)}"


class Filler(Generic[T]):
    """Encodes, measures and stores the values of one domain. Redis being away is a value not kept."""

    def __init__(self, domain: Domain, kind: type[T], parts: Parts) -> None:
        self.domain = domain
        self.parts = parts
        self._codec: Codec[T] = Codec(kind)

    def decode(self, key: str, look: Look) -> T | None:
        """The value of a hit; None for a negative one. Raises CorruptEntryError, after counting it."""
        if not look.value:
            return None
        try:
            return self._codec.decode(look.value)
        except CorruptEntryError as error:
            self.parts.signals.corrupt(self.domain.name)
            log.warning("cache.corrupt", domain=self.domain.name, key=key, reason=str(error))
            raise

    async def timed(self, load: Callable[[], Awaitable[R]]) -> R:
        """What `load` gives, measured."""
        started = time.perf_counter()
        try:
            return await load()
        finally:
            self.parts.signals.loaded(self.domain.name, time.perf_counter() - started)

    async def fill(self, key: str, token: str, mark: int, loading: Loading[T]) -> Landed[T]:
        """Load with a lease, keep, and give the lease back, also when the load fails."""
        try:
            value = await self.timed(loading.load)
        except BaseException:
            with suppress(CacheUnavailableError):
                await self._send([self._unkept(key, token, mark, ())])
            raise
        entry = self._loaded(key, mark, value, loading.tags, loading.keep)
        return Landed(value, await self._kept(replace(entry, token=token)) in _CURRENT)

    async def keep(self, key: str, mark: int, value: T | None, tags: Tags[T]) -> Kept | None:
        """Store a value if it is current; what became of it, None if Redis could not say."""
        return await self._kept(self._loaded(key, mark, value, tags, always))

    async def keep_many(self, values: Mapping[str, T | None], mark: int, tags: Tags[T]) -> int:
        """Store what is current and may be; gives how many."""
        entries = [self._loaded(key, mark, value, tags, always) for key, value in values.items()]
        return await self.store([entry for entry in entries if entry.store])

    async def store(self, entries: list[Keep]) -> int:
        """Store what is current; gives how many."""
        try:
            return (await self._send(entries)).count(Kept.KEPT) if entries else 0
        except CacheUnavailableError:
            self.parts.signals.refused(self.domain.name, "unavailable", len(entries))
            return 0

    def entry(self, key: str, mark: int, value: T, tags: Tags[T]) -> Keep:
        """An entry to store. Raises EntryTooLargeError, UnencodableError."""
        name, raw = self.domain.name, self._codec.encode(value)
        if len(raw) > self.parts.entry_limit:
            raise EntryTooLargeError(f"{name}:{key} has {len(raw)} bytes, at most {self.parts.entry_limit}")
        ttl = self.domain.lifetime()
        return Keep(name, key, mark, self._tags(tags, value), raw, ttl, ttl * (1 - REFRESH_SHARE))

    def _loaded(self, key: str, mark: int, value: T | None, tags: Tags[T], keep: Callable[[T], bool]) -> Keep:
        """The entry for what was loaded; one that only verifies where it is not to be stored."""
        known, reason = self._tags(tags, value), None
        if value is None:
            life = self.domain.negative
            return Keep(self.domain.name, key, mark, known, b"", life, life, store=life > 0)
        if keep(value):
            reason, entry = self._storable(key, mark, value, tags)
            if entry is not None:
                return entry
        if reason is not None:
            self.parts.signals.refused(self.domain.name, reason)
        return self._unkept(key, "", mark, known)

    def _storable(
        self, key: str, mark: int, value: T, tags: Tags[T]
    ) -> tuple[Refusal, None] | tuple[None, Keep]:
        """The entry, or why there is none: a request does not fail for what the cache cannot hold."""
        if self.parts.full(self.domain):
            return "pressure", None
        try:
            return None, self.entry(key, mark, value, tags)
        except EntryTooLargeError:
            return "too_large", None
        except UnencodableError:
            log.exception("cache.unencodable", domain=self.domain.name, key=key)
            return "unencodable", None

    def _unkept(self, key: str, token: str, mark: int, tags: tuple[str, ...]) -> Keep:
        return Keep(self.domain.name, key, mark, tags, token=token, store=False)

    def _tags(self, tags: Tags[T], value: T | None) -> tuple[str, ...]:
        if callable(tags):
            tags = () if value is None else tags(value)
        return (domain_tag(self.domain.name), *dict.fromkeys(map(plain, tags)))

    async def _kept(self, entry: Keep) -> Kept | None:
        try:
            (kept,) = await self._send([entry])
        except CacheUnavailableError:
            self.parts.signals.refused(self.domain.name, "unavailable")
            return None
        return kept

    async def _send(self, entries: list[Keep]) -> list[Kept]:
        kept = await self.parts.guard.run(self.parts.store.keep, *entries)
        for answer in kept:
            if answer in _REASONS:
                self.parts.signals.refused(self.domain.name, _REASONS[answer])
        return kept
