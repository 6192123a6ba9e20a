"""The table of domains: how long entries live, and which of them matter most."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from service.settings import CacheSettings

REFRESH_SHARE = 0.1
"""The last share of an entry's life, in which one reader renews it while all are served from it."""


class Priority(IntEnum):
    """The rank of a domain. The higher, the earlier it is warmed and the later it loses its memory.

    While Redis holds more than CACHE_MEMORY_HIGH of its `maxmemory`, LOW and NORMAL domains are not filled,
    and their entries are deleted, LOW first, until it is under CACHE_MEMORY_LOW. HIGH is filled and never
    deleted. CRITICAL differs from HIGH in the order of warming alone: sessions and permissions come first.
    """

    LOW = 1
    NORMAL = 2
    HIGH = 3
    CRITICAL = 4


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain. Times are seconds; `negative`: how long "there is no such thing" is kept, if at all."""

    name: str
    ttl: float
    priority: Priority
    negative: float
    jitter: float

    def lifetime(self) -> float:
        """A time to live, shortened by up to the jitter: entries made together do not end together."""
        return self.ttl * (1 - random.random() * self.jitter)  # noqa: S311 - spreads load, guards nothing


def domains(settings: CacheSettings) -> Mapping[str, Domain]:
    """Every domain by its name."""
    table = (
        ("permissions", settings.permissions_seconds, Priority.CRITICAL),
        ("sessions", settings.sessions_seconds, Priority.CRITICAL),
        ("users", settings.users_seconds, Priority.HIGH),
        ("settings", settings.settings_seconds, Priority.HIGH),
        ("transactions", settings.transactions_seconds, Priority.LOW),
    )
    return {
        name: Domain(name, ttl, priority, settings.negative_seconds, settings.ttl_jitter)
        for name, ttl, priority in table
    }
