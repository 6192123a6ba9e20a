"""What happened to each job and when, in a file that both sides map into memory.

The job writes its own line: no system call, and nothing is lost when its process is killed. Times are
nanoseconds of the monotonic clock, which every process of one machine shares.
"""

import mmap
import struct
import time
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("<QQ")  # lines begun, lines ended
_LINE = struct.Struct("<QQQ")  # number of the job, begin, end (0: not yet)
_COUNT = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Line:
    """One run of one job, or one call that enqueued it. `end` is 0 while it is under way."""

    number: int
    begin: int
    end: int


class Ledger:
    """Lines in the order in which they were begun. One process with one thread writes, any may read."""

    def __init__(self, path: Path, capacity: int | None = None) -> None:
        """Open a ledger, or make a new one if `capacity` says how many lines it is to hold."""
        if capacity is not None:
            path.write_bytes(b"\0" * (_HEADER.size + capacity * _LINE.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._capacity = (len(self._map) - _HEADER.size) // _LINE.size
        self._begun, self._ended = self.counts()

    def begin(self, number: int) -> int:
        """A new line, begun now. Returns what `end` takes."""
        slot = self._begun
        self._begun += 1
        if slot < self._capacity:
            _LINE.pack_into(self._map, _HEADER.size + slot * _LINE.size, number, time.monotonic_ns(), 0)
        _COUNT.pack_into(self._map, 0, self._begun)
        return slot

    def end(self, slot: int) -> None:
        """The line is done with."""
        if slot < self._capacity:
            offset = _HEADER.size + slot * _LINE.size + 2 * _COUNT.size
            _COUNT.pack_into(self._map, offset, time.monotonic_ns())
        self._ended += 1
        _COUNT.pack_into(self._map, _COUNT.size, self._ended)

    def counts(self) -> tuple[int, int]:
        """Lines begun and lines ended, those included for which there was no room."""
        begun, ended = _HEADER.unpack_from(self._map)
        return begun, ended

    def lines(self) -> list[Line]:
        """Every line that there was room for."""
        used = min(self.counts()[0], self._capacity)
        body = self._map[_HEADER.size : _HEADER.size + used * _LINE.size]
        return [Line(*line) for line in _LINE.iter_unpack(body)]

    def close(self) -> None:
        self._map.close()
