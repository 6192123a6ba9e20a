"""The composition root: the one place that knows which implementation stands behind each interface."""

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
from service.db.outbox import Outbox
from service.db.session import Database, PoolMetrics
from service.db.snowflake import Snowflake, node_of
from service.errors import StartError
from service.features.health.monitor import HealthMonitor, disk
from service.features.transactions.telemetry import TransactionSignals
from service.infra.queues.interface import JobQueue
from service.infra.queues.redis import RedisQueue
from service.infra.redis import RedisClient, open_redis
from service.settings import Environment, LogSink, QueueSettings, Settings

log = get_logger(__name__)

Role = Literal["api", "worker"]

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
    queue: JobQueue
    jobs: JobTelemetry
    outbox: Outbox
    health: HealthMonitor
    transactions: TransactionSignals


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
        node = settings.app.node_id
        keys = Snowflake(node_of(f"{name}@{instance}") if node is None else node)
        database = Database(settings.database, application=name, keys=keys)
        stack.push_async_callback(database.close)
        instrument_sqlalchemy(telemetry, database.engine)
        telemetry.registry.register(PoolMetrics(database.engine, settings.app.name))
        redis = open_redis(settings.redis, name=name)
        stack.push_async_callback(redis.aclose)
        queue = _queue(settings.queue, redis, telemetry)
        jobs = JobTelemetry(telemetry, system=queue.system, queue=queue.name)
        health = HealthMonitor(
            {"database": database.ping, "queue": queue.ping, "disk": disk}, required=frozenset({"database"})
        )
        log.info("process.opened", role=role, version=__version__, pid=os.getpid())
        stack.callback(log.info, "process.closing")
        yield Container(
            settings=settings,
            role=role,
            version=__version__,
            telemetry=telemetry,
            database=database,
            redis=redis,
            queue=queue,
            jobs=jobs,
            outbox=Outbox(jobs, source=name),
            health=health,
            transactions=TransactionSignals(telemetry),
        )


def _queue(settings: QueueSettings, redis: RedisClient, telemetry: Telemetry) -> JobQueue:
    match settings.engine:
        case "redis":
            queue = RedisQueue(
                redis, name=settings.name, poll=settings.poll_seconds, lease=settings.lease_seconds
            )
            instrument_redis(telemetry, queue.client)
            return queue
        case never:
            assert_never(never)


def _start_telemetry(config: TelemetryConfig) -> Telemetry:
    try:
        return Telemetry.start(config)
    except OSError as error:
        raise StartError(f"TELEMETRY_LOG_FILE: cannot write {config.log_file}: {error.strerror}") from None


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
        log_level=group.log_level,
        log_sink=group.log_sink or _SINKS[settings.app.env],
        log_file=group.log_file,
        log_max_bytes=group.log_max_bytes,
        log_backups=group.log_backups,
    )
