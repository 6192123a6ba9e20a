"""One transaction per unit of work, and a pool that turns its faults into `UnavailableError`."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg
from sqlalchemy import Row, TextClause, text
from sqlalchemy.exc import DBAPIError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker

from observability import Metrics, get_logger
from service.db.base import KEYS_OPTION, Entity
from service.db.engine import PoolMetrics, open_engine, open_unpooled_engine
from service.db.keys import Keys
from service.db.soft_delete import EntitySession
from service.errors import ServiceError, UnavailableError
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

    async def keys(self) -> Keys:
        """What gives new rows their keys, for SQL by hand."""
        connection = await self.session.run_sync(lambda session: session.connection())
        keys: Keys = connection.get_execution_options()[KEYS_OPTION]
        return keys

    async def delete(self, entity: Entity) -> None:
        """Soft delete: queries no longer see it. Raises StaleDataError if it was changed meanwhile."""
        entity.deleted_at = datetime.now(UTC)
        await self.session.flush()

    async def restore(self, entity: Entity) -> None:
        """Undo a soft delete; find the entity with `INCLUDE_DELETED`. Raises StaleDataError like `delete`."""
        entity.deleted_at = None
        await self.session.flush()

    def committed(self) -> None:
        for call in self._after_commit:
            call()


class Database:
    """The engine of one process. Connects when first used: it may be opened while the server is down."""

    def __init__(
        self, settings: DatabaseSettings, *, application: str, metrics: Metrics, holder: str | None = None
    ) -> None:
        """`application` is what the server shows the connections as, `holder` who holds the keys' node."""
        self._keys = Keys(holder or application)
        self.engine = open_engine(settings, application).execution_options(**{KEYS_OPTION: self._keys})
        self._single = self.engine.execution_options(isolation_level="AUTOCOMMIT")  # the same pool
        self._pool = PoolMetrics(self.engine, metrics)
        self._unpooled = open_unpooled_engine(settings, application)
        self._sessions = async_sessionmaker(
            self.engine, sync_session_class=EntitySession, expire_on_commit=False
        )

    @asynccontextmanager
    async def unit(self) -> AsyncIterator[UnitOfWork]:
        """A transaction: committed at the end of the block, rolled back by an exception.

        Raises:
            UnavailableError: no connection could be had, or it was lost, or a statement ran into its timeout.
        """
        with _faults():
            await self._keys.reserve(self.engine)
            async with self._sessions() as session, session.begin():
                with self._pool.wait():
                    await session.connection()
                unit = UnitOfWork(session)
                yield unit
        unit.committed()

    async def statement(self, statement: TextClause, parameters: Mapping[str, Any]) -> Sequence[Row[Any]]:
        """The rows of a statement that is a transaction by itself: one round trip, where `unit` takes three.

        Raises:
            UnavailableError: as for `unit`. The statement may have been carried out all the same.
        """
        with _faults():
            async with AsyncExitStack() as stack:
                with self._pool.wait():
                    connection = await stack.enter_async_context(self._single.connect())
                return (await connection.execute(statement, parameters)).all()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[AsyncConnection]:
        """A connection to hold for long, outside of the pool. Raises UnavailableError, also when lost."""
        with _faults():
            async with self._unpooled.connect() as connection:
                yield connection

    async def ping(self) -> None:
        """One round trip. Raises UnavailableError, also while the clock forbids new keys."""
        self._keys.check()
        with _faults():
            async with self.engine.connect() as connection:
                await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        with suppress(UnavailableError), _faults():
            # Without it the node is free again when its time has passed.
            await self._keys.release(self.engine)
        await self.engine.dispose()


@contextmanager
def _faults() -> Iterator[None]:
    try:
        yield
    except StatementError as error:
        if isinstance(error.orig, ServiceError):
            # A column default's, such as that of a key: SQLAlchemy wraps it.
            raise error.orig from None
        if not isinstance(error, DBAPIError):
            raise
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
