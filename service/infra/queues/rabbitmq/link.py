"""One connection to the broker: opened when it is needed, opened again with growing pauses."""

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import unquote

import aio_pika
from aio_pika.abc import AbstractConnection, TimeoutType
from aio_pika.exceptions import (
    AMQPError,
    AuthenticationError,
    ProbableAuthenticationError,
)
from aiormq.exceptions import ConnectionNotAllowed
from pydantic import SecretStr
from yarl import URL

from observability import get_logger
from service.errors import UnavailableError
from service.infra.queues.rabbitmq.declare import declare
from service.infra.queues.rabbitmq.topology import Topology, TopologyError

log = get_logger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0

# What they say of lost connections, we say once and in our own words.
for name in ("aio_pika", "aiormq"):
    logging.getLogger(name).setLevel(logging.CRITICAL)


class Link:
    """A connection on which the table is declared.

    aio-pika has a connection that restores itself. This one does not, so that whoever publishes hears of each
    loss, and that the table is declared again by the same code as the first time.
    """

    def __init__(
        self, url: SecretStr, topology: Topology, *, name: str, heartbeat: int, timeout: float
    ) -> None:
        self._url = URL(url.get_secret_value())
        self._topology = topology
        self._name = name
        self._heartbeat = heartbeat
        self._timeout = timeout
        self._connection: AbstractConnection | None = None
        self._opening = asyncio.Lock()
        self._pause = FIRST_PAUSE
        self._not_before = 0.0
        self._closings: set[asyncio.Task[None]] = set()

    @property
    def retry_in(self) -> float:
        """Seconds until another attempt is made."""
        return max(0.0, self._not_before - time.monotonic())

    async def connection(self) -> AbstractConnection:
        """The open connection. Fails at once in the pause after a failed attempt. Raises UnavailableError."""
        async with self._opening:
            if self._connection is not None and _usable(self._connection):
                return self._connection
            self.drop()
            if self.retry_in:
                raise UnavailableError("The job queue does not answer")
            try:
                async with asyncio.timeout(self._timeout * 2):
                    self._connection = await self._open()
            except (Exception, asyncio.CancelledError) as error:
                if not (_lost(error) or isinstance(error, TopologyError)):
                    raise
                self._not_before = time.monotonic() + self._pause
                log.warning(
                    "queue.unavailable", queue=self._name, reason=self._explain(error), retryIn=self._pause
                )
                self._pause = min(self._pause * 2, LONGEST_PAUSE)
                raise UnavailableError("The job queue does not answer") from error
            self._pause = FIRST_PAUSE
            return self._connection

    def drop(self) -> None:
        """Give the connection up, without waiting; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            task = asyncio.create_task(_close(connection, self._timeout), name="queue-disconnect")
            self._closings.add(task)
            task.add_done_callback(self._closings.discard)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        self.drop()
        await asyncio.gather(*self._closings)

    async def _open(self) -> AbstractConnection:
        connection = await aio_pika.connect(
            self._url,
            connection_class=_Connection,
            timeout=self._timeout,
            heartbeat=self._heartbeat,
            client_properties={"connection_name": self._name},
        )
        try:
            await declare(connection, self._topology)
        except BaseException:
            await _close(connection, self._timeout)
            raise
        return connection

    def _explain(self, error: BaseException) -> str:
        """What is wrong and what to do, without the password."""
        place = f"{self._url.host}:{self._url.port}" if self._url.port else str(self._url.host)
        match error:
            case AuthenticationError() | ProbableAuthenticationError():
                return (
                    f"the broker at {place} does not let user {self._url.user!r} in: correct the user and the"
                    " password in QUEUE_RABBITMQ_URL, or make that user (rabbitmqctl add_user)"
                )
            case ConnectionNotAllowed():
                host = unquote(self._url.raw_path[1:]) or "/"
                return (
                    f"the broker at {place} keeps user {self._url.user!r} out of virtual host {host!r}:"
                    " correct QUEUE_RABBITMQ_URL, or make the host and give the user its permissions"
                    " (rabbitmqctl add_vhost, set_permissions)"
                )
            case TopologyError():
                return str(error)
        text = f"{place}: {type(error).__name__}: {error}"
        return text.replace(self._url.password, "***") if self._url.password else text


class _Connection(aio_pika.Connection):
    """aio-pika leaves a connection that never came about to the garbage collector, which closes it in a task
    of its own, or complains of it where no loop runs."""

    async def connect(self, timeout: TimeoutType = None) -> None:  # noqa: ASYNC109 - aio-pika's
        try:
            await super().connect(timeout)
        except BaseException:
            await self.close()
            raise


@contextmanager
def faults() -> Iterator[None]:
    """What the client raises for a broker that went away becomes UnavailableError."""
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:
        if not _lost(error):
            raise
        raise UnavailableError("The job queue does not answer") from error


def _lost(error: BaseException) -> bool:
    """Whether that is how the client tells of a connection that is gone.

    A RuntimeError is for one that it knows to be closed. What waits for an answer it cancels, or has it raise
    a bare `Exception` where the connection ended without a reason.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() == 0
    return type(error) is Exception or isinstance(error, (AMQPError, RuntimeError, OSError, TimeoutError))


def _usable(connection: AbstractConnection) -> bool:
    """Its own `is_closed` stays false when the other side ends it."""
    transport = connection.transport
    return not connection.is_closed and transport is not None and not transport.connection.is_closed


async def _close(connection: AbstractConnection, seconds: float) -> None:
    with suppress(UnavailableError), faults():
        async with asyncio.timeout(seconds):
            await connection.close()
    if not connection.is_closed:
        # Its transport is given up by now; what is left is to say so, or the garbage collector tries again.
        await connection.close()
