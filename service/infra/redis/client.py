"""The Redis client of one process."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from service.settings import RedisSettings

RedisClient = Redis


def open_redis(settings: RedisSettings, *, name: str) -> RedisClient:
    """A client that answers bytes. Connects when first used: it may be opened while the server is down."""
    pool = BlockingConnectionPool.from_url(
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
