"""Redis: the process's raw client, and a typed store over it with limits, retries, metrics and spans."""

from service.infra.redis.client import RedisClient, open_redis
from service.infra.redis.faults import (
    RedisCommandFault,
    RedisConnectionFault,
    RedisDecodeFault,
    RedisEncodeFault,
    RedisFault,
    RedisKeyFault,
    RedisKeyTooLongFault,
    RedisRefusingFault,
    RedisTimeoutFault,
    RedisUnavailableFault,
    RedisValueTooLargeFault,
    RedisWrongTypeFault,
)
from service.infra.redis.keys import glob_escape
from service.infra.redis.pipeline import Pipeline
from service.infra.redis.store import RedisStore, Script
from service.infra.redis.subscription import Message, Subscription
from service.infra.redis.values import from_json, from_text, to_json

__all__ = [
    "Message",
    "Pipeline",
    "RedisClient",
    "RedisCommandFault",
    "RedisConnectionFault",
    "RedisDecodeFault",
    "RedisEncodeFault",
    "RedisFault",
    "RedisKeyFault",
    "RedisKeyTooLongFault",
    "RedisRefusingFault",
    "RedisStore",
    "RedisTimeoutFault",
    "RedisUnavailableFault",
    "RedisValueTooLargeFault",
    "RedisWrongTypeFault",
    "Script",
    "Subscription",
    "from_json",
    "from_text",
    "glob_escape",
    "open_redis",
    "to_json",
]
