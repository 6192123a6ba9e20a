"""What can go wrong with the cache, as types. A client sees none of them: they are mistakes in the code."""


class CacheError(Exception):
    """Any error of the cache."""


class CacheKeyError(CacheError):
    """A key that is empty or not text, or a template that a key cannot be made of."""


class UnknownDomainError(CacheError):
    """The table of domains has no such name."""


class EntryTooLargeError(CacheError):
    """A value over CACHE_ENTRY_LIMIT_BYTES once encoded, given by hand. A loaded one is just not kept."""


class BulkTooLargeError(CacheError):
    """More keys than CACHE_BULK_LIMIT in one call."""


class UnencodableError(CacheError):
    """A value that its codec cannot write."""


class CorruptEntryError(CacheError):
    """Stored bytes that their codec cannot read. Handled inside: it is deleted and counts as a miss."""


class CacheUnavailableError(CacheError):
    """Redis cannot be asked now. Handled inside: reads go to the source, changes are owed."""
