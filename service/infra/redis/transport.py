"""Round trips: one connection, one deadline, the retries, the measurements."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from observability import Telemetry
from service.infra.redis.client import Pool, RedisClient
from service.infra.redis.commands import Command
from service.infra.redis.faults import RedisConnectionFault, RedisFault, lost, refused
from service.infra.redis.metrics import RedisMetrics, RedisPoolMetrics
from service.settings import RedisSettings

_LOST = (RedisConnectionError, RedisTimeoutError, OSError, TimeoutError)


class Transport:
    """Sends commands over the pool of the process's client.

    A connection fault is tried again, `retries` times, `retry_delay_ms` apart: always when nothing was sent,
    and otherwise only if all commands are repeatable. A timeout is not tried again: a slow server is not
    helped by more work, and the caller has waited long enough. One round trip takes
    `command_timeout_seconds` at most, beside the wait for a connection.
    """

    def __init__(self, client: RedisClient, settings: RedisSettings, telemetry: Telemetry) -> None:
        pool = client.connection_pool
        if not isinstance(pool, Pool):
            raise TypeError("the client is not from open_redis")
        self.pool = pool
        self.metrics = RedisMetrics(telemetry.metrics)
        telemetry.registry.register(RedisPoolMetrics(pool, telemetry.metrics.namespace))
        self._tracer = telemetry.tracer
        self._settings = settings
        options = pool.connection_kwargs
        self._attributes: dict[str, str | int] = {
            "db.system.name": "redis",
            "db.namespace": str(options.get("db", 0)),
            "server.address": str(options.get("host", "localhost")),
            "server.port": int(options.get("port", 6379)),
        }

    async def send(self, commands: Sequence[Command[Any]], *, name: str, atomic: bool = False) -> list[Any]:
        """The reply of each command, in their order; the fault in its place where the server refused one.

        Raises:
            RedisUnavailableFault: no connection, no answer, or no answer in time.
            RedisCommandFault: the server threw away an atomic batch as a whole.
        """
        with self._measured(name, len(commands)) as span:
            repeatable = all(command.repeatable for command in commands)
            retries = self._settings.retries
            while True:
                try:
                    return await self._attempt(commands, name=name, atomic=atomic)
                except RedisConnectionFault as fault:
                    if retries == 0 or (fault.maybe_applied and not repeatable):
                        raise
                    retries -= 1
                    self.metrics.retries.inc()
                    span.add_event("redis.retry", {"reason": fault.reason})
                await asyncio.sleep(self._settings.retry_delay_ms / 1000)

    async def _attempt(self, commands: Sequence[Command[Any]], *, name: str, atomic: bool) -> list[Any]:
        started = time.perf_counter()
        try:
            connection = await self.pool.get_connection()
        except (*_LOST, RedisError) as error:
            raise lost(error, maybe_applied=False) from error
        finally:
            sent = time.perf_counter()
            self.metrics.pool_wait.observe(sent - started)
        try:
            async with asyncio.timeout(self._settings.command_timeout_seconds):
                return await _exchange(connection, commands, atomic=atomic)
        except _LOST as error:
            raise lost(error, maybe_applied=True) from error
        finally:
            self.metrics.observe(name, time.perf_counter() - sent)
            await self.pool.release(connection)

    @contextmanager
    def _measured(self, name: str, commands: int) -> Iterator[trace.Span]:
        """A CLIENT span below a span, none elsewhere: a poller would fill the store. Faults are counted."""
        below = trace.get_current_span().get_span_context().is_valid
        span: trace.Span = trace.INVALID_SPAN
        if below:
            span = self._tracer.start_span(
                name,
                kind=SpanKind.CLIENT,
                attributes={
                    **self._attributes,
                    "db.operation.name": name,
                    **({"db.operation.batch.size": commands} if commands > 1 else {}),
                },
            )
        try:
            yield span
        except RedisFault as fault:
            self.metrics.fault(fault.kind)
            span.set_attribute("error.type", fault.kind)
            span.set_status(StatusCode.ERROR, fault.reason)
            raise
        except asyncio.CancelledError:
            span.set_attribute("error.type", "cancelled")
            raise
        finally:
            if below:
                span.end()


async def _exchange(
    connection: AbstractConnection, commands: Sequence[Command[Any]], *, atomic: bool
) -> list[Any]:
    packed = [command.arguments for command in commands]
    if atomic:
        packed = [("MULTI",), *packed, ("EXEC",)]
    try:
        await connection.send_packed_command(connection.pack_commands(packed))
        replies: list[Any] = [await _reply(connection) for _ in packed]
    except BaseException:
        # Also when cancelled: an answer that is still under way must not meet the next command.
        await connection.disconnect(nowait=True)
        raise
    if not atomic:
        return replies
    if isinstance(replies[-1], RedisFault):
        # EXEC only says that something was wrong; the command itself says what.
        raise next(reply for reply in replies if isinstance(reply, RedisFault))
    return [refused(reply) if isinstance(reply, ResponseError) else reply for reply in replies[-1]]


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response()
    except ResponseError as error:
        return refused(error)
