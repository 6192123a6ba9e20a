"""The limiter as requests use it: short of time, open while its store is away, counted."""

import asyncio
import time
from collections.abc import Sequence

from opentelemetry import trace

from observability import Metrics, get_logger
from service.infra.rate_limit.interface import Decision, RateLimiter, RateLimiterError, Window
from service.settings import RateLimitSettings

log = get_logger(__name__)


class RateLimitGuard:
    """Asks the limiter and fails open: a store that is away costs its protection, not the service.

    A decision has `RATE_LIMIT_TIMEOUT_MS`. After some faults in a row the store is left alone for
    `RATE_LIMIT_BREAKER_SECONDS`, in which requests pass at once; then one request tries it again.
    """

    def __init__(self, limiter: RateLimiter, settings: RateLimitSettings, metrics: Metrics) -> None:
        self._limiter = limiter
        self._timeout = settings.timeout_ms / 1000
        self._most_faults = settings.breaker_faults
        self._pause = settings.breaker_seconds
        decisions = metrics.counter(
            "rate_limit_decisions", "Requests by what the rate limiter decided.", ("outcome",)
        )
        self._allowed = decisions.labels("allowed")
        self._refused = decisions.labels("refused")
        self._failed_open = decisions.labels("failed_open")
        metrics.gauge(
            "rate_limit_breaker_open", "1 while the rate limiter's store is left alone."
        ).set_function(lambda: float(self._faults >= self._most_faults))
        self._late: set[asyncio.Task[Decision]] = set()
        self._faults = 0
        self._closed_until = 0.0
        """No request asks before this time (monotonic, seconds)."""

    async def decide(self, windows: Sequence[Window]) -> Decision | None:
        """Count a request; None when nothing could decide and it may pass."""
        if self._faults >= self._most_faults:
            now = time.monotonic()
            if now < self._closed_until:
                self._pass()
                return None
            # The others go on passing while this one tries.
            self._closed_until = now + self._pause
        try:
            decision = await self._hit(windows)
        except (RateLimiterError, TimeoutError) as error:
            self._fault(error)
            self._pass()
            return None
        if self._faults >= self._most_faults:
            log.info("rate_limit.restored")
        self._faults = 0
        if decision.allowed:
            self._allowed.inc()
        else:
            self._refused.inc()
            trace.get_current_span().set_attribute("yardstick.rate_limit.outcome", "refused")
        return decision

    async def _hit(self, windows: Sequence[Window]) -> Decision:
        task = asyncio.create_task(self._limiter.hit(windows))
        try:
            await asyncio.wait({task}, timeout=self._timeout)
        finally:
            if not task.done():
                # Not awaited: redis-py (5.3, Python 3.11) loses a cancellation that meets it while it sends,
                # and would then wait as long as its own timeouts say.
                task.cancel()
                self._late.add(task)
                task.add_done_callback(self._let_go)
        if not task.done():
            raise TimeoutError
        return task.result()

    def _let_go(self, task: asyncio.Task[Decision]) -> None:
        self._late.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, or asyncio complains that nobody did

    def _pass(self) -> None:
        self._failed_open.inc()
        trace.get_current_span().set_attribute("yardstick.rate_limit.outcome", "failed_open")

    def _fault(self, error: Exception) -> None:
        self._faults += 1
        self._closed_until = time.monotonic() + self._pause
        if self._faults == self._most_faults:
            reason = str(error) or type(error).__name__
            log.warning("rate_limit.failing_open", error=reason, pause=self._pause)
