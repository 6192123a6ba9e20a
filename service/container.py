"""The composition root: the one place that knows which implementation stands behind each interface."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, assert_never

from observability import (
    EventLoopMonitor,
    JobTelemetry,
    Telemetry,
    TelemetryConfig,
    get_logger,
    instrument_redis,
    instrument_sqlalchemy,
)
from service import __version__
from service.db.jobs.outbox import Outbox
from service.db.jobs.pressure import Pressure
from service.db.session import Database
from service.errors import StartError
from service.features.health.monitor import HealthMonitor, disk
from service.features.live.access import LIVE_EVENTS, Authorizer, authorizer
from service.features.transactions.cache import TransactionViews
from service.features.transactions.telemetry import TransactionSignals
from service.infra.cache import Cache
from service.infra.event_bus import EventBus
from service.infra.live.hub import LiveHub
from service.infra.live.redis import RedisPublisher, RedisReader
from service.infra.locks import Locks
from service.infra.queues.file import FileQueue
from service.infra.queues.interface import JobQueue
from service.infra.queues.rabbitmq import RabbitQueue
from service.infra.queues.redis import RedisQueue
from service.infra.rate_limit.guard import RateLimitGuard
from service.infra.rate_limit.redis import RedisRateLimiter
from service.infra.redis import RedisClient, RedisStore, open_redis
from service.infra.storage.interface import Storage
from service.infra.storage.local import LocalStorage
from service.infra.storage.metered import MeteredStorage
from service.infra.storage.s3 import S3Storage
from service.infra.storage.signing import SIGNED_PATH, UrlSigner
from service.settings import Environment, FilesSettings, LogSink, QueueSettings, Settings
from service.tasks import end

log = get_logger(__name__)

Role = Literal["api", "worker", "scheduler"]

_SINKS: dict[Environment, LogSink] = {
    "development": "console",
    "test": "console",
    "staging": "file",
    "production": "stdout",
}


@dataclass(frozen=True, slots=True)
class Container:
    """Everything that a process has open."""

    settings: Settings
    role: Role
    version: str
    telemetry: Telemetry
    database: Database
    redis: RedisClient
    store: RedisStore
    locks: Locks
    cache: Cache
    queue: JobQueue
    jobs: JobTelemetry
    outbox: Outbox
    pressure: Pressure | None
    files: Storage
    file_urls: UrlSigner
    health: HealthMonitor
    rate_limit: RateLimitGuard
    bus: EventBus
    live: LiveHub
    live_access: Authorizer
    transactions: TransactionSignals
    transaction_views: TransactionViews


@asynccontextmanager
async def open_container(settings: Settings, role: Role) -> AsyncIterator[Container]:
    """Open everything for one process; close it in reverse order, also when opening stops half-way.

    Nothing connects here, so that a process starts while its dependencies are down: it is live at once and
    ready when they answer.

    Raises:
        StartError: the log file cannot be opened.
    """
    instance = settings.telemetry.instance_id or f"{socket.gethostname()}:{os.getpid()}"
    name = f"{settings.app.name}-{role}"
    async with AsyncExitStack() as stack:
        telemetry = _start_telemetry(_telemetry_config(settings, name, instance))
        stack.push_async_callback(telemetry.close)
        lag = EventLoopMonitor(telemetry)
        lag.start()
        stack.push_async_callback(lag.stop)
        database = Database(
            settings.database, application=name, metrics=telemetry.metrics, holder=f"{name}@{instance}"
        )
        stack.push_async_callback(database.close)
        instrument_sqlalchemy(telemetry, database.engine)
        redis = open_redis(settings.redis, name=name)
        stack.push_async_callback(redis.aclose)
        store = RedisStore(redis, settings.redis, telemetry)
        store.start()
        stack.push_async_callback(store.close)
        cache = Cache(store, settings.cache, telemetry)
        stack.push_async_callback(cache.close)
        queue = _queue(settings.queue, redis, telemetry, max_bytes=settings.redis.max_value_bytes)
        stack.push_async_callback(queue.close)
        jobs = JobTelemetry(telemetry, system=queue.system, queue=queue.name)
        pressure = Pressure(settings.queue, database, telemetry.metrics) if role == "api" else None
        if pressure is not None:
            stack.push_async_callback(end, asyncio.create_task(pressure.run(), name="pressure"))
        file_urls = UrlSigner(
            settings.files.signing_key.get_secret_value(),
            base=settings.files.public_url.rstrip("/") + SIGNED_PATH,
        )
        files = MeteredStorage(_files(settings.files, file_urls), telemetry)
        stack.push_async_callback(files.close)
        health = HealthMonitor(
            {
                "database": database.ping,
                "cache": redis.ping,
                "queue": queue.ping,
                "disk": disk(settings.health),
                "files": files.ping,
            },
            required=frozenset({"database"}),
            settings=settings.health,
            metrics=telemetry.metrics,
        )
        stack.push_async_callback(health.close)
        windows = RedisRateLimiter(redis, prefix=f"{settings.app.name}:rate:")
        live_access = authorizer(settings.live, settings.app.env)
        live, bus = LiveHub(settings.live, telemetry), EventBus(telemetry)
        if live_access.enabled:
            await stack.enter_async_context(_live(settings, telemetry, bus, live, name=name, role=role))
        stack.push_async_callback(bus.close)
        transaction_views = TransactionViews(cache, database, bus)
        cache.start()
        log.info("process.opened", role=role, version=__version__, pid=os.getpid())
        stack.callback(log.info, "process.closing")
        yield Container(
            settings=settings,
            role=role,
            version=__version__,
            telemetry=telemetry,
            database=database,
            redis=redis,
            store=store,
            locks=Locks(store, settings.locks, telemetry),
            cache=cache,
            queue=queue,
            jobs=jobs,
            outbox=Outbox(jobs, source=name, admit=pressure.admit if pressure else None),
            pressure=pressure,
            files=files,
            file_urls=file_urls,
            health=health,
            rate_limit=RateLimitGuard(windows, settings.rate_limit, telemetry.metrics),
            bus=bus,
            live=live,
            live_access=live_access,
            transactions=TransactionSignals(telemetry, bus),
            transaction_views=transaction_views,
        )


def _queue(settings: QueueSettings, redis: RedisClient, telemetry: Telemetry, *, max_bytes: int) -> JobQueue:
    match settings.engine:
        case "redis":
            queue = RedisQueue(
                redis,
                name=settings.name,
                poll=settings.poll_seconds,
                lease=settings.lease_seconds,
                max_bytes=max_bytes,
            )
            instrument_redis(telemetry, queue.client)
            return queue
        case "rabbitmq":
            assert settings.rabbitmq_url is not None  # noqa: S101 - the settings have seen to it
            return RabbitQueue(
                settings.rabbitmq_url,
                name=settings.name,
                queue_type=settings.rabbitmq_type,
                prefetch=settings.rabbitmq_prefetch,
                heartbeat=settings.rabbitmq_heartbeat_seconds,
                timeout=settings.rabbitmq_timeout_seconds,
                max_bytes=settings.rabbitmq_max_message_bytes,
            )
        case "file":
            return FileQueue(
                settings.file_path,
                name=settings.name,
                poll=settings.poll_seconds,
                lease=settings.lease_seconds,
            )
        case never:
            assert_never(never)


def _start_telemetry(config: TelemetryConfig) -> Telemetry:
    try:
        return Telemetry.start(config)
    except OSError as error:
        raise StartError(f"TELEMETRY_LOG_FILE: cannot write {config.log_file}: {error.strerror}") from None


def _files(settings: FilesSettings, signer: UrlSigner) -> Storage:
    match settings.engine:
        case "local":
            return LocalStorage(settings.root, signer)
        case "s3":
            return S3Storage(settings)
        case never:
            assert_never(never)


@asynccontextmanager
async def _live(
    settings: Settings, telemetry: Telemetry, bus: EventBus, hub: LiveHub, *, name: str, role: Role
) -> AsyncIterator[None]:
    """Events go from the bus of every process to all API processes, which read them for their clients."""
    # A client of its own: the reader's connection is busy all the time.
    redis = open_redis(settings.redis, name=f"{name}-live")
    instrument_redis(telemetry, redis)
    bus.subscribe(LIVE_EVENTS, RedisPublisher(redis, settings.live, telemetry).publish, name="live")
    reader = RedisReader(redis, settings.live, hub, timeout=settings.redis.command_timeout_seconds)
    reading = asyncio.create_task(reader.run(), name="live-reader") if role == "api" else None
    try:
        yield
    finally:
        await end(reading)
        await redis.aclose()


def _telemetry_config(settings: Settings, name: str, instance: str) -> TelemetryConfig:
    group = settings.telemetry
    return TelemetryConfig(
        service_name=name,
        namespace=settings.app.name,
        version=__version__,
        environment=settings.app.env,
        instance=instance,
        enabled=group.enabled,
        otlp_endpoint=group.otlp_endpoint or None,
        sample_ratio=group.sample_ratio,
        log_level="debug" if settings.app.debug else group.log_level,
        log_sink=group.log_sink or _SINKS[settings.app.env],
        log_file=group.log_file,
        log_max_bytes=group.log_max_bytes,
        log_backups=group.log_backups,
    )
