"""How connections to PostgreSQL are made, for the service and for migrations, and what their pool tells."""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool, QueuePool

from observability import Metrics
from service.settings import DatabaseSettings

_WAIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def open_engine(settings: DatabaseSettings, application: str) -> AsyncEngine:
    """A pooled engine. Connects when first used."""
    engine = create_async_engine(
        _url(settings),
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        pool_timeout=settings.pool_timeout_seconds,
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args=_bounded_arguments(settings, application),
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def open_migration_engine(settings: DatabaseSettings) -> AsyncEngine:
    """An engine without pool and without statement timeout: a migration takes what it takes."""
    return create_async_engine(
        _url(settings), poolclass=NullPool, connect_args=_connect_arguments(settings), hide_parameters=True
    )


def open_unpooled_engine(settings: DatabaseSettings, application: str) -> AsyncEngine:
    """For connections that are held for long and would be missing from the pool."""
    return create_async_engine(
        _url(settings),
        poolclass=NullPool,
        hide_parameters=True,
        connect_args=_bounded_arguments(settings, application),
    )


class PoolMetrics(Collector):
    """What the pool holds, read when scraped, and how long units of work wait for a connection."""

    def __init__(self, engine: AsyncEngine, metrics: Metrics) -> None:
        pool = engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101 - open_engine() makes no other
        self._pool = pool
        self._namespace = metrics.namespace
        self._waiting = 0
        self._waits = metrics.histogram(
            "db_pool_wait_seconds",
            "Time until a unit of work had its connection, a new one's opening included.",
            buckets=_WAIT_BUCKETS,
        )
        self._timeouts = metrics.counter("db_pool_timeouts", "Units of work that got no connection in time.")
        metrics.registry.register(self)

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Around getting a connection."""
        started = time.perf_counter()
        self._waiting += 1
        try:
            yield
        except PoolTimeout:
            self._timeouts.inc()
            raise
        finally:
            self._waiting -= 1
            self._waits.observe(time.perf_counter() - started)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        prefix = f"{self._namespace}_db_pool"
        pool = self._pool
        connections = GaugeMetricFamily(
            f"{prefix}_connections", "Connections of the database pool.", labels=["state"]
        )
        connections.add_metric(["used"], pool.checkedout())
        connections.add_metric(["idle"], pool.checkedin())
        connections.add_metric(["overflow"], max(0, pool.overflow()))
        yield connections
        largest = pool.size() + pool._max_overflow  # noqa: SLF001 - the pool has no name for it
        yield GaugeMetricFamily(f"{prefix}_limit", "Most connections that the pool opens.", value=largest)
        yield GaugeMetricFamily(
            f"{prefix}_waiting", "Units of work waiting for a connection.", value=self._waiting
        )


def _url(settings: DatabaseSettings) -> URL:
    return make_url(settings.url.get_secret_value()).set(drivername="postgresql+asyncpg")


def _bounded_arguments(settings: DatabaseSettings, application: str) -> dict[str, Any]:
    return {
        **_connect_arguments(settings),
        # The server ends a slow statement; this bounds the wait for one that no longer answers at all.
        "command_timeout": settings.statement_timeout_ms / 1000 + 1,
        "server_settings": {
            "application_name": application,
            "statement_timeout": str(settings.statement_timeout_ms),
            "jit": "off",
        },
    }


def _connect_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    return {"timeout": settings.connect_timeout_seconds, "ssl": _tls(settings)}


def _tls(settings: DatabaseSettings) -> ssl.SSLContext | str:
    """asyncpg's `ssl`. Only the verify modes prove who answers; `require` encrypts towards anybody."""
    if settings.tls_mode not in ("verify-ca", "verify-full"):
        return settings.tls_mode
    context = ssl.create_default_context(cafile=settings.tls_ca)
    context.check_hostname = settings.tls_mode == "verify-full"
    return context


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """A connection that the server has closed is replaced without a round trip, unlike with pool_pre_ping."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError
