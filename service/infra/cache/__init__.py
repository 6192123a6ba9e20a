"""A cache in Redis that never serves what it was told has changed; docs/platform.md tells how to use it."""

from service.infra.cache.cache import Cache
from service.infra.cache.decorator import cached
from service.infra.cache.domains import Domain, Priority
from service.infra.cache.errors import (
    BulkTooLargeError,
    CacheError,
    CacheKeyError,
    EntryTooLargeError,
    UnencodableError,
    UnknownDomainError,
)
from service.infra.cache.events import invalidate_on
from service.infra.cache.region import Region
from service.infra.cache.statistics import CacheStatistics, DomainStatistics
from service.infra.cache.strategies import CacheAside, ReadThrough, Source, WriteAround, WriteThrough
from service.infra.cache.write_behind import VersionedSource, WriteBehind

__all__ = [
    "BulkTooLargeError",
    "Cache",
    "CacheAside",
    "CacheError",
    "CacheKeyError",
    "CacheStatistics",
    "Domain",
    "DomainStatistics",
    "EntryTooLargeError",
    "Priority",
    "ReadThrough",
    "Region",
    "Source",
    "UnencodableError",
    "UnknownDomainError",
    "VersionedSource",
    "WriteAround",
    "WriteBehind",
    "WriteThrough",
    "cached",
    "invalidate_on",
]
