"""A lock that is held, and the guard that keeps it so."""

import asyncio
import time
from types import TracebackType
from typing import Self

from observability import get_logger
from service.infra.locks.errors import LockLostError
from service.infra.locks.metrics import LockMetrics
from service.infra.locks.scripts import RELEASE, RENEW
from service.infra.redis import RedisFault, RedisStore
from service.tasks import end

log = get_logger(__name__)

RELEASE_SECONDS = 2.0
_RENEWALS_PER_TTL = 3
_RETRY_SECONDS = 0.2


class Lock:
    """A lock that is held.

    `fence` is higher than that of every holder before. Give it to whatever the lock protects, and have that
    refuse a lower one than it has seen: a holder that stood still cannot know that it is late, its target
    can. `lost` is set as soon as the lock is known to be gone, or can no longer be known to be there;
    `reason` says which.
    """

    def __init__(self, name: str, *, key: str, token: str, fence: int, ttl: float, asked: float) -> None:
        self.name = name
        self.key = key
        self.token = token
        self.fence = fence
        self.ttl = ttl
        self.lost = asyncio.Event()
        self.reason = ""
        self._expires_at = asked + ttl

    @property
    def remaining(self) -> float:
        """Seconds for which it is ours for sure; renewed every third of its time to live."""
        return 0.0 if self.lost.is_set() else max(0.0, self._expires_at - time.monotonic())

    def check(self) -> None:
        """Raises LockLostError unless the lock is ours at this moment. Cheap: asks nobody."""
        if self.remaining <= 0:
            raise LockLostError(self.name, self.reason or "not renewed in time")

    def renewed(self, asked: float) -> None:
        # From before it was asked for: the server's time to live begins later, so ours ends earlier.
        self._expires_at = asked + self.ttl


class Guard:
    """Renews a lock while its block runs, ends the block when the lock is lost, and releases it."""

    def __init__(self, store: RedisStore, metrics: LockMetrics, lock: Lock, *, cancel: bool) -> None:
        self._store = store
        self._metrics = metrics
        self._lock = lock
        self._cancel = cancel
        self._cancelled = False

    async def __aenter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - an async block runs in a task
        self._task = task
        self._cancelling = task.cancelling()
        self._renewal = asyncio.create_task(self._renew(), name=f"lock-{self._lock.name}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._renewal.cancel()
        if not self._lock.lost.is_set():
            if self._lock.remaining > 0:
                try:
                    await end(self._renewal)
                finally:
                    await self._release()
            else:
                self._lose("not renewed in time", cancel=False)
        if not self._lock.lost.is_set():
            return
        if self._cancelled and await self._take_back(error):
            raise LockLostError(self._lock.name, self._lock.reason) from error
        if error is None:
            raise LockLostError(self._lock.name, self._lock.reason)

    async def _take_back(self, error: BaseException | None) -> bool:
        """Undo our cancellation; whether it was what ended the block. One of somebody else goes on."""
        others = self._task.uncancel() > self._cancelling
        if isinstance(error, asyncio.CancelledError):
            return not others
        try:
            # The block may have ended before ours was delivered: it would strike whoever waits next.
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if others:
                raise
        return False

    async def _renew(self) -> None:
        lock, pause = self._lock, self._lock.ttl / _RENEWALS_PER_TTL
        while True:
            await asyncio.sleep(min(pause, lock.remaining))
            asked = time.monotonic()
            if lock.remaining <= 0:
                self._lose("not renewed in time", cancel=self._cancel)
                return
            try:
                async with asyncio.timeout(lock.remaining):
                    ours = await self._store.run(RENEW, [lock.key], [lock.token, round(lock.ttl * 1000)])
            except (RedisFault, TimeoutError) as fault:
                self._metrics.renewals_failed.labels(self._metrics.kind(lock.name)).inc()
                log.warning("lock.not_renewed", lock=lock.name, reason=str(fault), remaining=lock.remaining)
                pause = _RETRY_SECONDS
                continue
            if not ours:
                self._lose("another has it, or it was deleted", cancel=self._cancel)
                return
            lock.renewed(asked)
            pause = lock.ttl / _RENEWALS_PER_TTL

    def _lose(self, reason: str, *, cancel: bool) -> None:
        self._lock.reason = reason
        self._lock.lost.set()
        self._metrics.lost.labels(self._metrics.kind(self._lock.name)).inc()
        log.warning("lock.lost", lock=self._lock.name, fence=self._lock.fence, reason=reason)
        if cancel:
            self._cancelled = True
            self._task.cancel()

    async def _release(self) -> None:
        lock = self._lock
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                ours = await self._store.run(RELEASE, [lock.key], [lock.token])
        except (RedisFault, TimeoutError) as fault:
            # It was ours until the end, which is all that counts: it ends by itself.
            log.warning("lock.not_released", lock=lock.name, reason=str(fault), freeIn=lock.remaining)
            return
        if not ours:
            self._lose("another has it, or it was deleted", cancel=False)
