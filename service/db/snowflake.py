"""64-bit keys that sort by time.

    0 | 41 bits: milliseconds since 2025-01-01 UTC | 10 bits: node | 12 bits: sequence

The first bit stays 0, so that a key is positive as a signed 64-bit number; the milliseconds last until 2094.
A generator owns the milliseconds of one node that were reserved for it and makes no key outside of them: that
two generators never own the same ones is the business of `service.db.keys`.
"""

import time
from collections.abc import Callable

from service.errors import UnavailableError

EPOCH_MS = 1_735_689_600_000
NODES = 1 << 10
LAST_MS = (1 << 41) - 1
SEQUENCES = 1 << 12
TOLERANCE_MS = 10_000
"""How far the clock may go back before keys are refused."""

Clock = Callable[[], int]
"""Milliseconds since EPOCH_MS."""


class ClockError(UnavailableError):
    """The clock went back too far, or stands before 2025: no key can be made until it is right."""


class ReservationError(UnavailableError):
    """The milliseconds reserved for this process are used up; the next unit of work reserves more."""


def wall_clock() -> int:
    return time.time_ns() // 1_000_000 - EPOCH_MS


class Snowflake:
    """Keys of one node within its reserved milliseconds, ascending. For one thread.

    While the clock stands behind the last key, keys go on from that key's millisecond and borrow from the
    next ones: nobody waits, and nothing is made twice. Further behind than TOLERANCE_MS, `next` refuses.
    """

    def __init__(self, node: int, *, after_ms: int, until_ms: int, clock: Clock = wall_clock) -> None:
        """Owns the milliseconds after `after_ms`, to `until_ms` inclusive."""
        if not 0 <= node < NODES:
            raise ValueError(f"node is {node}: 0 to {NODES - 1}")
        if not 0 <= after_ms <= until_ms <= LAST_MS:
            raise ValueError(f"milliseconds {after_ms} to {until_ms}: ascending, 0 to {LAST_MS}")
        self.node = node
        self._clock = clock
        self._sequence = SEQUENCES - 1
        self.last_ms = after_ms
        self.until_ms = until_ms

    def next(self) -> int:
        """The next key, above all before it.

        Raises:
            ClockError: the clock is more than TOLERANCE_MS behind the last key.
            ReservationError: the key would be after `until_ms`.
        """
        now, sequence = self._clock(), 0
        if now <= self.last_ms:
            if self.last_ms - now > TOLERANCE_MS:
                raise ClockError
            now, sequence = self.last_ms, self._sequence + 1
            if sequence == SEQUENCES:
                now, sequence = now + 1, 0
        if now > self.until_ms:
            raise ReservationError
        self.last_ms, self._sequence = now, sequence
        return now << 22 | self.node << 12 | sequence
