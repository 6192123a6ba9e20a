"""What the cache asks of its store: bytes by domain and key, leases, marks and changes.

A **mark** is a number that only grows, shared by all processes. Who wants to store a value takes a mark
before reading it from the source. A change of a key or tag gets a mark of its own, and whatever was read
before it is refused: so "read the old value, write and invalidate, then store the old value" cannot happen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from service.infra.cache.names import Names


class Found(StrEnum):
    """What a look found."""

    HIT = "hit"
    REFRESH = "refresh"
    """A hit near its end of life, and the asker is the one to renew it."""
    LEASE = "lease"
    """Nothing, and the asker is the one to load it."""
    BUSY = "busy"
    """Nothing, and someone else is loading it."""
    HELD = "held"
    """Nothing, and nothing may be stored: the key is being written."""
    MISS = "miss"
    """Nothing, and no lease was asked for."""


class Kept(StrEnum):
    """What became of a value that was to be stored."""

    KEPT = "kept"
    VERIFIED = "verified"
    """It was not to be stored, and it was current."""
    CHANGED = "changed"
    """The key or one of its tags has changed since the value's mark."""
    HELD = "held"
    """The key or one of its tags is being written."""
    OLDER = "older"
    """What is stored was read later."""
    FULL = "full"
    """The server has no memory for it."""


class Moment(StrEnum):
    """When a change is told: once, after it; or before it and after it."""

    ONCE = "once"
    BEGIN = "begin"
    END = "end"


@dataclass(frozen=True, slots=True)
class Look:
    """`value` with a hit: empty bytes stand for "there is no such thing". `mark` with a lease: the mark to
    store with; with a plain hit: the entry's own. `holder` with `BUSY`: the other one's token.
    """

    found: Found
    value: bytes = b""
    mark: int = 0
    holder: str = ""
    corrupt: bool = False


@dataclass(frozen=True, slots=True)
class Keep:
    """A value to store. Times are seconds; with `store` false its being current is verified and no more."""

    domain: str
    key: str
    mark: int
    tags: tuple[str, ...]
    value: bytes = b""
    ttl: float = 0.0
    fresh: float = 0.0
    token: str = ""
    store: bool = True


@dataclass(frozen=True, slots=True)
class Change:
    """`sole`: nobody else wrote to these names meanwhile, so that the writer's value may be stored with
    `mark`.
    """

    sole: bool
    mark: int


class Store(Protocol):
    """Where entries are kept. Every method raises the store's own faults."""

    async def look(self, domain: str, key: str, token: str) -> Look:
        """The entry; if there is none, a lease for `token` unless someone has it. The token "" takes no
        lease.
        """

    async def look_many(self, domain: str, keys: Sequence[str]) -> list[Look]:
        """The entries in the order of the keys, without leases."""

    async def keep(self, *values: Keep) -> list[Kept]:
        """Store values that are current, and give back their leases."""

    async def discard(self, domain: str, key: str, mark: int) -> None:
        """Delete the entry with this mark."""

    async def mark(self) -> int:
        """A mark for values that are read from now on."""

    async def change(self, moment: Moment, names: Names, token: str) -> Change:
        """Make entries with these keys or tags, and values read before now, unusable.

        From BEGIN to END of the same token, and at most for the time of a hold, nothing is stored under them.
        """

    async def evict(self, domain: str, most: int) -> int:
        """Delete up to about `most` entries of a domain for their memory; gives how many."""

    async def memory(self) -> float | None:
        """Share of the memory limit that is in use; None without a limit."""

    async def once(self, name: str, seconds: float) -> bool:
        """Whether nobody else was told yes for this name in the last `seconds`."""

    async def add_counts(self, counts: Mapping[str, int]) -> None:
        """Add to the counts that all processes share. Not repeated when its outcome is unknown."""

    async def counts(self) -> Mapping[str, int]:
        """The counts that all processes share."""
