"""What a rate limiter is: windows are counted together, and all of them admit or none does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from service.settings import Rate


class RateLimiterError(Exception):
    """The store of the windows did not decide."""


@dataclass(frozen=True, slots=True)
class Window:
    """One counted thing, such as `ip:203.0.113.7`, and its rate. The key has no secret and is bounded."""

    key: str
    rate: Rate


@dataclass(frozen=True, slots=True)
class WindowState:
    """A window after the decision.

    `seconds` is the time until it has more room than now; in a full window, until it has any.
    """

    rate: Rate
    remaining: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether to go on, and every window in the order asked."""

    allowed: bool
    windows: tuple[WindowState, ...]

    @property
    def tightest(self) -> WindowState:
        """The window with the least room; among equals, the one that takes longest."""
        return min(self.windows, key=lambda state: (state.remaining, -state.seconds))

    @property
    def retry_after(self) -> float:
        """Seconds until the same request would be admitted if nobody else asks; 0 when it was."""
        if self.allowed:
            return 0.0
        return max(state.seconds for state in self.windows if state.remaining < 1)


class RateLimiter(Protocol):
    """Counts in one place for all processes."""

    async def hit(self, windows: Sequence[Window]) -> Decision:
        """Count one request in every window, or in none when one of them is full.

        In no time span of a window's length are more requests admitted than its limit.

        Raises:
            RateLimiterError: the store is away, too slow to answer, or refuses.
        """
        ...
