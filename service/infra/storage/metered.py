"""Metrics and spans around a store, whichever one it is."""

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from opentelemetry.trace import Span, SpanKind, StatusCode

from observability import Telemetry
from service.infra.storage.errors import FileMissingError
from service.infra.storage.interface import ByteRange, FileEntry, FileInfo, OpenFile, Storage
from service.infra.storage.streams import Counted

_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_FAILED = frozenset({"full", "unavailable", "failed"})


class MeteredStorage:
    """Implements Storage around another one.

    `files_operations_total{operation,outcome}` and `files_operation_duration_seconds{operation}`; a download
    is `open`, up to its first byte, and `read`, up to its last. Outcomes: ok, missing, taken, refused, full,
    unavailable, and `failed` for all else: the client left, or a fault that has no name here.
    """

    def __init__(self, storage: Storage, telemetry: Telemetry) -> None:
        self._storage = storage
        self.engine = storage.engine
        self._tracer = telemetry.tracer
        self._kind = SpanKind.INTERNAL if storage.engine == "local" else SpanKind.CLIENT
        metrics = telemetry.metrics
        self._operations = metrics.counter(
            "files_operations", "Operations on files by how they ended.", ("operation", "outcome")
        )
        self._durations = metrics.histogram(
            "files_operation_duration_seconds", "Time an operation on a file took.", ("operation",), _BUCKETS
        )
        moved = metrics.counter("files_bytes", "Bytes of files read and written.", ("direction",))
        self._written, self._read = moved.labels("in"), moved.labels("out")

    async def put(
        self,
        key: str,
        stream: AsyncIterable[bytes],
        *,
        content_type: str,
        name: str | None = None,
        overwrite: bool = False,
    ) -> FileInfo:
        counted = Counted(stream)
        try:
            with self._measured("put") as span:
                info = await self._storage.put(
                    key, counted, content_type=content_type, name=name, overwrite=overwrite
                )
                span.set_attribute("yardstick.file.size", info.size)
                return info
        finally:
            self._written.inc(counted.size)

    async def open(self, key: str, part: ByteRange | None = None) -> OpenFile:
        with self._measured("open") as span:
            file = await self._storage.open(key, part)
            span.set_attribute("yardstick.file.size", file.info.size)
        reading = _Reading(file, self._finished)
        return replace(file, chunks=reading.chunks(), close=reading.close)

    async def stat(self, key: str) -> FileInfo:
        with self._measured("stat"):
            return await self._storage.stat(key)

    async def exists(self, key: str) -> bool:
        try:
            await self.stat(key)
        except FileMissingError:
            return False
        return True

    async def delete(self, key: str) -> None:
        with self._measured("delete"):
            await self._storage.delete(key)

    async def list(self, folder: str = "", *, limit: int = 1000, after: str = "") -> list[FileEntry]:
        with self._measured("list"):
            return await self._storage.list(folder, limit=limit, after=after)

    async def signed_url(self, key: str, seconds: int) -> str:
        with self._measured("sign"):
            return await self._storage.signed_url(key, seconds)

    async def ping(self) -> None:
        await self._storage.ping()

    async def close(self) -> None:
        await self._storage.close()

    @contextmanager
    def _measured(self, operation: str) -> Iterator[Span]:
        started = time.perf_counter()
        outcome = "failed"
        with self._tracer.start_as_current_span(
            f"files {operation}",
            kind=self._kind,
            attributes={"yardstick.files.engine": self.engine},
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
                outcome = "ok"
            except Exception as error:
                outcome = getattr(error, "outcome", "failed")
                if outcome in _FAILED:
                    span.record_exception(error)
                raise
            finally:
                span.set_attribute("yardstick.files.outcome", outcome)
                if outcome in _FAILED:
                    span.set_status(StatusCode.ERROR)
                self._operations.labels(operation, outcome).inc()
                self._durations.labels(operation).observe(time.perf_counter() - started)

    def _finished(self, size: int, seconds: float, outcome: str) -> None:
        self._read.inc(size)
        self._operations.labels("read", outcome).inc()
        self._durations.labels("read").observe(seconds)


class _Reading:
    """One download: its bytes, and once how it ended."""

    def __init__(self, file: OpenFile, finished: Callable[[int, float, str], None]) -> None:
        self._file = file
        self._finished: Callable[[int, float, str], None] | None = finished
        self._started = time.perf_counter()
        self._size = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._file.chunks:
                self._size += len(chunk)
                yield chunk
        except Exception as error:
            self._finish(getattr(error, "outcome", "failed"))
            raise

    async def close(self) -> None:
        whole = self._size == self._file.stop - self._file.start
        self._finish("ok" if whole else "failed")
        await self._file.close()

    def _finish(self, outcome: str) -> None:
        finished, self._finished = self._finished, None
        if finished is not None:
            finished(self._size, time.perf_counter() - self._started, outcome)
