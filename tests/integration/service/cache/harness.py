"""A cache, as one process has it, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis as RawRedis

from observability import Telemetry, TelemetryConfig
from service.infra.cache import Cache
from service.infra.redis import RedisStore, open_redis
from service.settings import CacheSettings, RedisSettings
from tests.integration.service.harness import eventually


@dataclass
class Process:
    """A cache with what a process has around it. `raw` looks at Redis from outside."""

    cache: Cache
    redis: RedisStore
    telemetry: Telemetry
    raw: Any

    def metric(self, name: str, **labels: str) -> float:
        return self.telemetry.registry.get_sample_value(f"yardstick_cache_{name}", labels) or 0.0

    def reads(self, outcome: str, domain: str = "users") -> float:
        return self.metric("requests_total", domain=domain, outcome=outcome)

    async def asked(self, times: int) -> None:
        """Until Redis has answered that many reads, so that each of them knows whom it waits for."""

        async def answered() -> bool:
            labels = {"command": "EVALSHA"}
            found = self.telemetry.registry.get_sample_value("yardstick_redis_command_seconds_count", labels)
            return (found or 0) >= times

        await eventually(answered)

    async def names(self, part: str = "") -> list[str]:
        """Keys of the cache that begin so, without the prefix."""
        return sorted(
            key.decode().removeprefix("yardstick:cache:")
            for key in await self.raw.keys(f"yardstick:cache:{part}*")
        )


@asynccontextmanager
async def process(url: str, **changes: object) -> AsyncIterator[Process]:
    """One process's cache. Nothing runs in its background unless `cache.start()` is called."""
    telemetry = Telemetry.start(TelemetryConfig("cache-test", namespace="yardstick", log_sink="stdout"))
    settings = RedisSettings.model_validate({"url": url, "retries": 0})
    client = open_redis(settings, name="cache-test")
    raw = RawRedis.from_url(url)
    redis = RedisStore(client, settings, telemetry)
    # A busy machine is no outage: what is tested of timeouts sets its own.
    values = {"probe_seconds": 0.05, "timeout_ms": 5000, **changes}
    cache = Cache(redis, CacheSettings.model_validate(values), telemetry)
    try:
        yield Process(cache, redis, telemetry, raw)
    finally:
        await cache.close()
        await redis.close()
        await client.aclose()
        await raw.aclose()
        await telemetry.close()


@dataclass
class Loads:
    """A source that counts, and can be made to wait."""

    value: object = "v1"
    calls: int = 0
    gate: asyncio.Event | None = None
    running: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> Any:
        self.calls += 1
        found = self.value
        self.running.set()
        if self.gate is not None:
            await self.gate.wait()
        return found
