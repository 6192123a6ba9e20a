"""The Redis client of one process, and the pool below it."""

import asyncio

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.settings import RedisSettings

RedisClient = Redis


class Pool(BlockingConnectionPool):
    """Waits for a free connection, and can be counted and filled."""

    @property
    def idle(self) -> int:
        return sum(1 for connection in self._available_connections if connection.is_connected)

    @property
    def used(self) -> int:
        return len(self._in_use_connections)

    def make(self) -> AbstractConnection:
        """A connection that the pool does not count."""
        connection: AbstractConnection = self.make_connection()  # type: ignore[no-untyped-call]
        return connection

    async def fill(self, connections: int) -> None:
        """Have at least so many connected. Raises what connecting raises, after keeping those that work."""
        wanted = min(connections, self.max_connections) - self.idle - self.used
        taken = await asyncio.gather(
            *(self.get_connection() for _ in range(self.idle + max(0, wanted))), return_exceptions=True
        )
        fault: BaseException | None = None
        for found in taken:
            if isinstance(found, BaseException):
                fault = found
            else:
                await self.release(found)
        if fault is not None:
            raise fault


def open_redis(settings: RedisSettings, *, name: str) -> RedisClient:
    """A client that answers bytes. Connects when first used: it may be opened while the server is down.

    This is the raw client, for engines that bring their own commands, scripts and faults (arq, the streams).
    It repeats any command after a fault, also one that ran; everything else uses the store over it.
    """
    pool = Pool.from_url(
        settings.url.get_secret_value(),
        max_connections=settings.max_connections,
        timeout=settings.command_timeout_seconds,
        socket_connect_timeout=settings.connect_timeout_seconds,
        socket_timeout=settings.command_timeout_seconds,
        retry=Retry(ConstantBackoff(settings.retry_delay_ms / 1000), settings.retries),
        retry_on_error=[RedisConnectionError, RedisTimeoutError],
        client_name=name,
    )
    return Redis.from_pool(pool)
