"""The one thread of a process that touches the queue file, and its group commit."""

import asyncio
import os
import random
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from observability import get_logger
from service.errors import StartError, UnavailableError
from service.infra.queues.file_schema import BUSY_SECONDS, open_file

log = get_logger(__name__)

T = TypeVar("T")

Operation = Callable[[sqlite3.Connection], T]
_PAUSE = (0.0002, 0.005)


@dataclass(slots=True)
class _Call:
    operation: Operation[Any]
    durable: bool
    done: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class FileWriter:
    """Runs operations in a thread, all that wait together in one transaction.

    A commit outlives the death of the process; one with a durable operation in it is also synced, so that it
    outlives the machine's. Operations are statements that may be run again: of a transaction that fails, each
    is tried once more by itself, so that one cannot spoil another.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="queue-file")
        self._waiting: deque[_Call] = deque()
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)
        self._durable = True
        # A file that goes away while it is used is missed, not replaced: its disk may come back.
        self._create = create

    async def write(self, operation: Operation[T], *, durable: bool = False) -> T:
        """The operation's result once it is committed.

        Raises:
            UnavailableError: whether it happened is not known.
        """
        loop = asyncio.get_running_loop()
        call = _Call(operation, durable, loop.create_future())
        self._waiting.append(call)
        self._submit(self._drain, loop)
        result: T = await call.done
        return result

    async def read(self, operation: Operation[T]) -> T:
        """The operation's result, outside of any transaction. Raises UnavailableError."""
        loop = asyncio.get_running_loop()
        call = _Call(operation, False, loop.create_future())
        self._submit(self._read, loop, call)
        result: T = await call.done
        return result

    async def close(self) -> None:
        """Finish what waits, and close the file."""
        await asyncio.to_thread(self._shut)

    def _submit(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            self._thread.submit(work, *arguments)
        except RuntimeError as error:
            raise UnavailableError("The job queue is closed") from error

    def _shut(self) -> None:
        self._thread.shutdown(wait=True)
        self._disconnect()

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        calls = []
        while self._waiting:
            calls.append(self._waiting.popleft())
        if not calls:
            return
        try:
            self._commit(calls)
        except (sqlite3.Error, OSError, StartError, UnavailableError) as error:
            # Where nobody can get in, there is no use in asking for each of them again.
            alone = calls if len(calls) > 1 and not isinstance(error, UnavailableError) else []
            for call in calls:
                call.error = error
            for call in alone:
                self._retry(call)
        except Exception as error:  # noqa: BLE001 - a defect of an operation, which its caller shall see
            for call in calls:
                call.error = error
        _answer(loop, calls)

    def _retry(self, call: _Call) -> None:
        try:
            self._commit([call])
        except Exception as error:  # noqa: BLE001 - told to the caller
            call.error = error
        else:
            call.error = None

    def _read(self, loop: asyncio.AbstractEventLoop, call: _Call) -> None:
        try:
            call.result = call.operation(self._connect())
        except Exception as error:  # noqa: BLE001 - told to the caller
            self._recover(error)
            call.error = error
        _answer(loop, [call])

    def _commit(self, calls: list[_Call]) -> None:
        try:
            connection = self._connect()
            durable = any(call.durable for call in calls)
            if durable is not self._durable:
                connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            _begin(connection)
            for call in calls:
                call.result = call.operation(connection)
            connection.execute("COMMIT")
        except BaseException as error:
            self._recover(error)
            raise

    def _connect(self) -> sqlite3.Connection:
        """The open file, if it is still the one that the path leads to: what is written elsewhere is lost."""
        if self._connection is not None:
            try:
                status = os.stat(self._path)  # noqa: PTH116 - once for each transaction
            except OSError:
                status = None
            if status is not None and (status.st_dev, status.st_ino) == self._inode:
                return self._connection
            self._disconnect()
            log.error("queue.file_gone", path=str(self._path), jobs="those in it are lost with it")
        connection = open_file(self._path, create=self._create)
        status = self._path.stat()
        self._inode = (status.st_dev, status.st_ino)
        self._create = False
        self._connection, self._durable = connection, True
        return connection

    def _recover(self, error: BaseException) -> None:
        """Undo what is open. After anything but a wait that was too long, begin with a new connection."""
        connection = self._connection
        if connection is None:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            pass
        else:
            if isinstance(error, UnavailableError):
                return
        self._disconnect()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except sqlite3.Error as error:
                log.warning("queue.file_not_closed", path=str(self._path), reason=str(error))


def _begin(connection: sqlite3.Connection) -> None:
    """Become the one writer. Raises UnavailableError when others take too long."""
    limit = time.monotonic() + BUSY_SECONDS
    pause = _PAUSE[0]
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            if time.monotonic() > limit:
                raise UnavailableError("The queue file is locked by another process") from error
        else:
            return
        time.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - so that processes do not march in step
        pause = min(pause * 2, _PAUSE[1])


def _answer(loop: asyncio.AbstractEventLoop, calls: list[_Call]) -> None:
    for call in calls:
        if isinstance(call.error, (sqlite3.Error, OSError, StartError)):
            log.warning("queue.file_fault", reason=str(call.error), error=_name(call.error))
            fault = UnavailableError("The job queue does not answer")
            fault.__cause__ = call.error
            call.error = fault

    def tell() -> None:
        for call in calls:
            if call.done.done():
                continue
            if call.error is None:
                call.done.set_result(call.result)
            else:
                call.done.set_exception(call.error)

    try:
        loop.call_soon_threadsafe(tell)
    except RuntimeError:
        # The loop has ended, and with it whoever waited.
        return


def _name(error: Exception) -> str:
    return str(getattr(error, "sqlite_errorname", type(error).__name__))
