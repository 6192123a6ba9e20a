"""`async with locks.hold("transaction:42") as lock:` - for the whole service, one holder at a time."""

import asyncio
import random
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from observability import Telemetry
from service.infra.locks.errors import LockNotAcquiredError
from service.infra.locks.lock import RELEASE_SECONDS, Guard, Lock
from service.infra.locks.metrics import LockMetrics
from service.infra.locks.scripts import ACQUIRE, RELEASE
from service.infra.redis import RedisFault, RedisStore
from service.settings import LockSettings

TTL_SECONDS = (1.0, 300.0)
_FENCE = "lock-fence"


class Locks:
    """Makes locks; one per process. Every lock's key is `lock:<name>` in the store."""

    def __init__(self, store: RedisStore, settings: LockSettings, telemetry: Telemetry) -> None:
        self._store = store
        self._settings = settings
        self._metrics = LockMetrics(telemetry.metrics)

    @asynccontextmanager
    async def hold(
        self,
        name: str,
        *,
        ttl: float | None = None,
        retries: int | None = None,
        retry_delay: float | None = None,
        cancel: bool = True,
    ) -> AsyncIterator[Lock]:
        """Hold the lock `name` inside the block.

        It is renewed as long as the block runs. If it is lost all the same (Redis forgot it, did not answer
        for its time to live, or this process stood still), the block is cancelled where it waits and
        LockLostError is raised. With `cancel` false the block goes on; it can look at `lock.lost`, and
        LockLostError is raised at its end. An error of the block itself is passed on in either case.

        Not reentrant: a second `hold` of the same name inside the block finds it held.

        Args:
            name: `kind:id`, such as `transaction:42`; the kind is a label of the metrics.
            ttl: seconds after which the lock of a holder that died is free, 1 to 300.
            retries: tries after the first one.
            retry_delay: seconds between the tries, give or take half of it.

        Raises:
            LockNotAcquiredError: it was held throughout the retries; 409.
            LockLostError: 503.
            RedisUnavailableFault: it could not be asked for; 503.
            ValueError, RedisKeyFault: the arguments are wrong.
        """
        ttl = self._settings.ttl_seconds if ttl is None else ttl
        retries = self._settings.retries if retries is None else retries
        delay = self._settings.retry_delay_ms / 1000 if retry_delay is None else retry_delay
        if not TTL_SECONDS[0] <= ttl <= TTL_SECONDS[1]:
            raise ValueError(f"ttl is {ttl} s: {TTL_SECONDS[0]:g} to {TTL_SECONDS[1]:g}")
        if retries < 0 or not 0 <= delay <= TTL_SECONDS[1]:
            raise ValueError("retries and retry_delay must not be negative")
        kind = self._metrics.kind(name)
        started = time.perf_counter()
        try:
            lock = await self._acquire(name, kind, ttl, retries, delay)
        finally:
            self._metrics.wait.labels(kind).observe(time.perf_counter() - started)
        self._metrics.acquired.labels(kind).inc()
        started = time.perf_counter()
        try:
            async with Guard(self._store, self._metrics, lock, cancel=cancel):
                yield lock
        finally:
            self._metrics.hold.labels(kind).observe(time.perf_counter() - started)

    async def _acquire(self, name: str, kind: str, ttl: float, retries: int, delay: float) -> Lock:
        token = secrets.token_hex(16)
        key = f"lock:{name}"
        for attempt in range(retries + 1):
            # From before it was asked for: the server's time to live begins later, so ours ends earlier.
            asked = time.monotonic()
            command = self._store.run(ACQUIRE, [key, _FENCE], [token, round(ttl * 1000)])
            # In a task of its own: the client may swallow a cancellation, and the lock would be held.
            asking = asyncio.ensure_future(command)
            try:
                answer = await asyncio.shield(asking)
            except BaseException as error:
                if not isinstance(error, RedisFault) or error.maybe_applied:
                    # It may be ours without our knowing: nobody should wait for it to expire.
                    await self._abandon(asking, key, token)
                raise
            if answer:
                return Lock(name, key=key, token=token, fence=int(answer[0]), ttl=ttl, asked=asked)
            if attempt == 0:
                self._metrics.contended.labels(kind).inc()
            if attempt < retries:
                await asyncio.sleep(delay * random.uniform(0.5, 1.5))  # noqa: S311 - spreads the tries
        self._metrics.refused.labels(kind).inc()
        raise LockNotAcquiredError(name)

    async def _abandon(self, asking: "asyncio.Future[Any]", key: str, token: str) -> None:
        # After its answer: on another connection a release could overtake what is still on its way.
        await asyncio.wait([asking], timeout=RELEASE_SECONDS)
        with suppress(RedisFault, TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._store.run(RELEASE, [key], [token])
