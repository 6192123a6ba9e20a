"""Redis: the process's raw client, and a typed store over it with limits, retries, metrics and spans."""

from service.infra.redis.client import RedisClient, open_redis

__all__ = ["RedisClient", "open_redis"]
