"""Raw samples on disk: one append-only binary file per generator process, read while it grows.

A file is a magic number and then records, little-endian, each headed by one letter:
`D` defines a string (id u16, length u16, UTF-8), `S` is a sample, `M` a mark of the run's course.
Nothing is rounded and nothing is binned, so every statistic is computed from what was measured.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import BinaryIO, NamedTuple

from loadtest.errors import RecordingError

MAGIC = b"YSLT\x01"
PATTERN = "samples-*.bin"
MOST_STRINGS = 2_000  # beyond it, error texts are pooled: a text with an ID in it must not fill the disk
LONGEST_STRING = 300
_DEFINITION = struct.Struct("<cHH")
_SAMPLE = struct.Struct("<cddHHHH16s")
_MARK = struct.Struct("<cdBIf")
_NO_TRACE = bytes(16)


class Phase(IntEnum):
    """Where a generator process is in its run."""

    RUNNING = 0
    STARTED = 1
    RAMPED = 2
    STOPPING = 3
    STOPPED = 4


class Sample(NamedTuple):
    """One measured thing: an HTTP request, or with kind `JOB` what happens behind it."""

    start: float  # seconds since the epoch, when it was sent
    elapsed: float  # seconds
    kind: str  # the HTTP method, JOB, or EXCEPTION (a journey itself failed)
    name: str  # the route's template
    status: int  # 0 when nothing answered
    error: str  # empty when all was well
    trace_id: str  # 32 hex digits, or empty

    @property
    def route(self) -> str:
        return self.name if self.kind in {"JOB", "EXCEPTION"} else f"{self.kind} {self.name}"

    @property
    def is_http(self) -> bool:
        return self.kind not in {"JOB", "EXCEPTION"}

    @property
    def end(self) -> float:
        return self.start + self.elapsed


class Mark(NamedTuple):
    """A generator process at a moment: its users, and how late its own timer fired (seconds)."""

    time: float
    phase: Phase
    users: int
    late: float


class Writer:
    """Buffers records; `flush` puts them into the file. One per process, one thread."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._buffer = bytearray(MAGIC)
        self._ids: dict[str, int] = {}

    def sample(self, sample: Sample) -> None:
        trace = bytes.fromhex(sample.trace_id) if sample.trace_id else _NO_TRACE
        kind, name, error = self._id(sample.kind), self._id(sample.name), self._id(sample.error)
        self._buffer += _SAMPLE.pack(
            b"S", sample.start, sample.elapsed, kind, name, sample.status, error, trace
        )

    def mark(self, mark: Mark) -> None:
        self._buffer += _MARK.pack(b"M", mark.time, mark.phase, mark.users, mark.late)

    def flush(self) -> None:
        while self._buffer:
            del self._buffer[: self._file.write(self._buffer)]

    def _id(self, text: str) -> int:
        text = text[:LONGEST_STRING]
        known = self._ids.get(text)
        if known is not None:
            return known
        if len(self._ids) >= MOST_STRINGS:
            return self._id_of_rest()
        return self._define(text)

    def _id_of_rest(self) -> int:
        rest = "(others: too many different texts)"
        return self._ids[rest] if rest in self._ids else self._define(rest)

    def _define(self, text: str) -> int:
        number = self._ids[text] = len(self._ids)
        encoded = text.encode("utf-8", "replace")
        self._buffer += _DEFINITION.pack(b"D", number, len(encoded)) + encoded
        return number


@dataclass
class _Source:
    file: BinaryIO
    rest: bytes
    strings: dict[int, str]
    begun: bool = False


class Recording:
    """All sample files of a folder; `read` takes in what was added since. A cut last record waits."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sources: dict[Path, _Source] = {}
        self.samples: list[Sample] = []
        self.marks: list[Mark] = []

    def read(self) -> None:
        """Raises RecordingError when a file is not a sample file or is damaged."""
        for path in sorted(self._folder.glob(PATTERN)):
            if path not in self._sources:
                self._sources[path] = _Source(path.open("rb"), b"", {})
            source = self._sources[path]
            source.rest += source.file.read()
            source.rest = source.rest[self._parse(source, path) :]

    def close(self) -> None:
        for source in self._sources.values():
            source.file.close()

    def time_of(self, phase: Phase) -> float | None:
        """When the first process reached the phase; None if none has."""
        return min((mark.time for mark in self.marks if mark.phase == phase), default=None)

    def _parse(self, source: _Source, path: Path) -> int:
        data, at = source.rest, 0
        if not source.begun:
            if len(data) < len(MAGIC):
                return 0
            if not data.startswith(MAGIC):
                raise RecordingError(f"{path} is not a sample file of this version")
            source.begun, at = True, len(MAGIC)
        sizes = {ord("S"): _SAMPLE.size, ord("M"): _MARK.size, ord("D"): _DEFINITION.size}
        while at < len(data):
            size = sizes.get(data[at])
            if size is None:
                raise RecordingError(f"{path} is damaged: no record begins with byte {data[at]}")
            if at + size > len(data):
                break
            if data[at] == ord("D"):
                _, number, length = _DEFINITION.unpack_from(data, at)
                if at + size + length > len(data):
                    break
                source.strings[number] = data[at + size : at + size + length].decode()
                size += length
            elif data[at] == ord("S"):
                self.samples.append(_sample(source.strings, data, at))
            else:
                _, time, phase, users, late = _MARK.unpack_from(data, at)
                self.marks.append(Mark(time, Phase(phase), users, late))
            at += size
        return at


def _sample(strings: dict[int, str], data: bytes, at: int) -> Sample:
    _, start, elapsed, kind, name, status, error, trace = _SAMPLE.unpack_from(data, at)
    trace_id = "" if trace == _NO_TRACE else trace.hex()
    return Sample(start, elapsed, strings[kind], strings[name], status, strings[error], trace_id)
