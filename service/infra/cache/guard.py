"""Keeps requests from waiting for a Redis that does not answer."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from observability import get_logger
from service.infra.cache.errors import CacheUnavailableError
from service.infra.cache.signals import CacheSignals
from service.infra.redis import RedisConnectionFault, RedisFault, RedisTimeoutFault
from service.tasks import end

log = get_logger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
_LOG_SECONDS = 10.0


class Guard:
    """A timeout and a breaker around every call.

    A lost connection, or `faults` timeouts in a row, open it: from then on a call fails at once, at no cost,
    while a task of its own asks whether Redis answers again. Before it closes, `on_recovery` is awaited.
    """

    def __init__(
        self,
        ping: Callable[[], Awaitable[object]],
        signals: CacheSignals,
        *,
        timeout: float,
        faults: int,
        probe: float,
    ) -> None:
        self._ping = ping
        self._signals = signals
        self._timeout = timeout
        self._threshold = faults
        self._probe = probe
        self._faults = 0
        self._recovery: asyncio.Task[None] | None = None
        self._logged_at = float("-inf")
        self._unlogged = 0
        self.on_recovery: Callable[[], Awaitable[None]] | None = None

    @property
    def open(self) -> bool:
        return self._recovery is not None

    async def run(self, call: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """The call's result. Raises CacheUnavailableError for every fault of Redis."""
        if self.open:
            raise CacheUnavailableError("Redis is left alone")
        try:
            async with asyncio.timeout(self._timeout):
                result = await call(*args, **kwargs)
        except (RedisFault, TimeoutError) as error:
            self._failed(error)
            raise CacheUnavailableError(str(error)) from error
        self._faults = 0
        return result

    def trip(self, reason: str) -> None:
        """Open it, for a reason other than its own."""
        if self.open:
            return
        log.error("cache.unavailable", reason=reason, readsGoTo="source")
        self._signals.open.set(1)
        self._recovery = asyncio.create_task(self._recover(), name="cache-recovery")

    async def close(self) -> None:
        await end(self._recovery)

    def _failed(self, error: Exception) -> None:
        timed_out = isinstance(error, (TimeoutError, RedisTimeoutFault))
        kind = "timeout" if timed_out else error.kind if isinstance(error, RedisFault) else "fault"
        self._signals.faults.labels(kind).inc()
        self._faults += 1
        self._say(kind, error)
        if isinstance(error, RedisConnectionFault) or (timed_out and self._faults >= self._threshold):
            self.trip(f"{kind}: {error}")

    def _say(self, kind: str, error: Exception) -> None:
        """One line for many faults: they come by the request."""
        self._unlogged += 1
        if time.monotonic() - self._logged_at < _LOG_SECONDS:
            return
        log.warning("cache.fault", kind=kind, reason=str(error), faults=self._unlogged)
        self._logged_at, self._unlogged = time.monotonic(), 0

    async def _recover(self) -> None:
        started = time.monotonic()
        while True:
            await asyncio.sleep(self._probe)
            try:
                async with asyncio.timeout(self._timeout):
                    await self._ping()
                if self.on_recovery is not None:
                    await self.on_recovery()
            except (RedisFault, TimeoutError) as error:
                self._say("recovery", error)
            else:
                break
        self._faults = 0
        self._recovery = None
        self._signals.open.set(0)
        log.info("cache.available", seconds=round(time.monotonic() - started, 3))
