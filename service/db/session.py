"""One transaction per unit of work, and a pool that turns its faults into `UnavailableError`."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import QueuePool

from observability import get_logger
from service.db.base import KEYS_OPTION
from service.db.snowflake import Snowflake
from service.errors import UnavailableError
from service.settings import DatabaseSettings

log = get_logger(__name__)

# Statement timeout, shutdown, too many connections, deadlock, serialization: the same work may succeed later.
_TRANSIENT_STATES = ("57014", "57P01", "57P02", "57P03", "53", "40P01", "40001", "08", "55P03")


@dataclass(slots=True)
class UnitOfWork:
    """A session inside its transaction. Operations never commit: whoever opened the unit does."""

    session: AsyncSession
    _after_commit: list[Callable[[], None]] = field(default_factory=list)

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call this once the transaction is durable; never when it is rolled back."""
        self._after_commit.append(call)

    def committed(self) -> None:
        for call in self._after_commit:
            call()


class Database:
    """The engine of one process. Connects when first used: it may be opened while the server is down."""

    def __init__(self, settings: DatabaseSettings, *, application: str, keys: Snowflake) -> None:
        self.engine = _engine(settings, application).execution_options(**{KEYS_OPTION: keys})
        self._sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[UnitOfWork]:
        """A transaction: committed at the end of the block, rolled back by an exception.

        Raises:
            UnavailableError: no connection could be had, or it was lost, or a statement ran into its timeout.
        """
        with _faults():
            async with self._sessions() as session, session.begin():
                await session.connection()
                unit = UnitOfWork(session)
                yield unit
        unit.committed()

    async def ping(self) -> None:
        """One round trip. Raises UnavailableError."""
        with _faults():
            async with self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        await self.engine.dispose()


class PoolMetrics(Collector):
    """`<namespace>_db_pool_connections{state}`, read from the pool when scraped."""

    def __init__(self, engine: AsyncEngine, namespace: str) -> None:
        self._engine = engine
        self._name = f"{namespace}_db_pool_connections"

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily(self._name, "Connections of the database pool.", labels=["state"])
        pool = self._engine.pool
        assert isinstance(pool, QueuePool)  # noqa: S101 - _engine() makes no other
        family.add_metric(["used"], pool.checkedout())
        family.add_metric(["idle"], pool.checkedin())
        family.add_metric(["overflow"], max(0, pool.overflow()))
        yield family


def _engine(settings: DatabaseSettings, application: str) -> AsyncEngine:
    url = make_url(settings.url.get_secret_value()).set(drivername="postgresql+asyncpg")
    statement_seconds = settings.statement_timeout_ms / 1000
    engine = create_async_engine(
        url,
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        pool_timeout=settings.pool_timeout_seconds,
        pool_use_lifo=True,
        hide_parameters=True,
        connect_args={
            "timeout": settings.connect_timeout_seconds,
            # The server ends a slow statement; this bounds the wait for one that no longer answers at all.
            "command_timeout": statement_seconds + 1,
            "server_settings": {
                "application_name": application,
                "statement_timeout": str(settings.statement_timeout_ms),
                "jit": "off",
            },
        },
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def _refuse_closed(connection: Any, _record: object, _proxy: object) -> None:
    """A connection that the server has closed is replaced without a round trip, unlike with pool_pre_ping."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        state = str(getattr(error.orig, "sqlstate", "") or "")
        if not (
            error.connection_invalidated or state.startswith(_TRANSIENT_STATES) or _is_interface_error(error)
        ):
            raise
        raise _unavailable(error) from error
    except (PoolTimeout, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # asyncpg's own errors arrive bare from connecting only: starting up, too many clients and so on.
        raise _unavailable(error) from error


def _is_interface_error(error: DBAPIError) -> bool:
    """A connection that was lost between two statements has no SQLSTATE."""
    return type(error.orig).__name__ == "InterfaceError"


def _unavailable(error: Exception) -> UnavailableError:
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    log.warning("database.unavailable", error=type(cause).__name__, reason=str(cause).partition("\n")[0])
    return UnavailableError()
