"""64-bit keys that sort by time: 41 bits of milliseconds, 10 of node, 12 of sequence."""

import hashlib
import secrets
import time
from collections.abc import Callable

EPOCH_MS = 1_735_689_600_000  # 2025-01-01T00:00:00Z
NODES = 1 << 10
_SEQUENCES = 1 << 12


def node_of(name: str) -> int:
    """A node, 0 to 1023, for a process that was given none. Two names may share one."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=2).digest()) % NODES


class Snowflake:
    """Keys of one process, unique and ascending even when the clock is set back. For one event loop."""

    def __init__(self, node: int, now_ms: Callable[[], int] | None = None) -> None:
        if not 0 <= node < NODES:
            raise ValueError(f"node is {node}: 0 to {NODES - 1}")
        self._node = node
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self._last_ms = 0
        self._sequence = 0

    def next(self) -> int:
        """The next key, above all before it."""
        now = self._now_ms() - EPOCH_MS
        if now > self._last_ms:
            # A random start keeps two processes that share a node apart in most milliseconds.
            self._last_ms, self._sequence = now, secrets.randbelow(_SEQUENCES // 2)
        else:
            self._sequence += 1
            if self._sequence == _SEQUENCES:
                # More than the clock allows, or the clock went back: borrow from the next millisecond.
                self._last_ms, self._sequence = self._last_ms + 1, 0
        return self._last_ms << 22 | self._node << 12 | self._sequence
