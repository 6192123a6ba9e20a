"""Distributed locks: one holder at a time, renewed while held, with a fencing token for what it writes."""

from service.infra.locks.errors import LockLostError, LockNotAcquiredError
from service.infra.locks.lock import Lock
from service.infra.locks.locks import Locks

__all__ = ["Lock", "LockLostError", "LockNotAcquiredError", "Locks"]
