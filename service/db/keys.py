"""Whose keys are whose: each process reserves milliseconds of a node in the database that the keys are for.

A row per node says up to which millisecond that node is taken. A process takes a node whose time has passed
and writes down how far ahead it will go; it makes no key beyond, and whoever takes the node next starts after
it. So two processes cannot make the same key, whatever their clocks do, however long one is paused, and
however it ended: there is no lease that could be lost without noticing. Where the database does not answer
there are no keys, and nothing that they could be for.
"""

import asyncio

from sqlalchemy import BigInteger, CursorResult, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.orm import Mapped, mapped_column

from observability import get_logger
from service.db.base import Base
from service.db.snowflake import (
    LAST_MS,
    TOLERANCE_MS,
    Clock,
    ClockError,
    ReservationError,
    Snowflake,
    wall_clock,
)

log = get_logger(__name__)

AHEAD_MS = 300_000
"""How far ahead a process reserves. The node of one that was killed is free again after this time."""


class SnowflakeNode(Base):
    """A node; its `id` is the node's number. `reserved_ms` counts from the keys' epoch."""

    __tablename__ = "snowflake_node"

    reserved_ms: Mapped[int] = mapped_column(BigInteger)
    holder: Mapped[str]


class Keys:
    """The keys of one process. `reserve` before `next`: a unit of work does it when it opens."""

    def __init__(self, holder: str, *, clock: Clock = wall_clock) -> None:
        """`holder` is written beside the node, for people."""
        self._holder = holder[:200]
        self._clock = clock
        self._lock = asyncio.Lock()
        self._snowflake: Snowflake | None = None

    def next(self) -> int:
        """The next key. Raises ClockError, ReservationError."""
        if self._snowflake is None:
            raise ReservationError
        return self._snowflake.next()

    async def reserve(self, engine: AsyncEngine) -> None:
        """See to it that keys can be made for a while. Costs a round trip in a few minutes.

        Raises:
            ClockError: the clock stands before the keys' epoch.
            ReservationError: no node is free.
        """
        if self._enough():
            return
        async with self._lock:
            if self._enough():
                return
            now = self._clock()
            until = now + AHEAD_MS
            if not 0 < now < until <= LAST_MS:
                raise ClockError
            async with engine.begin() as connection:
                node = await self._take(connection, now, until)
            # Only now is it written down for certain.
            self._own(node, now, until)

    def check(self) -> None:
        """Raises ClockError if the clock is too far back for the next key."""
        if self._snowflake is not None and self._snowflake.last_ms - self._clock() > TOLERANCE_MS:
            raise ClockError

    async def release(self, engine: AsyncEngine) -> None:
        """Give back what was not used, so that the node is free at once."""
        snowflake, self._snowflake = self._snowflake, None
        if snowflake is not None:
            async with engine.begin() as connection:
                await self._move(connection, snowflake.node, snowflake.until_ms, snowflake.last_ms)

    def _enough(self) -> bool:
        return self._snowflake is not None and self._clock() + AHEAD_MS // 2 < self._snowflake.until_ms

    async def _take(self, connection: AsyncConnection, now: int, until: int) -> int:
        held = self._snowflake
        if held is not None and await self._move(connection, held.node, held.until_ms, until):
            return held.node
        # Somebody else has it by now, after a long pause of this process, or there never was one.
        return await self._free(connection, now, until)

    def _own(self, node: int, now: int, until: int) -> None:
        held = self._snowflake
        if held is not None and held.node == node:
            held.until_ms = until
            return
        after = max(now, held.last_ms if held else 0)
        self._snowflake = Snowflake(node, after_ms=after, until_ms=until, clock=self._clock)
        log.info("keys.node_taken", node=node)

    @staticmethod
    async def _move(connection: AsyncConnection, node: int, mine: int, until: int) -> bool:
        """Write down another end if the node is still ours."""
        found: CursorResult[None] = await connection.execute(
            update(SnowflakeNode)
            .where(SnowflakeNode.id == node, SnowflakeNode.reserved_ms == mine)
            .values(reserved_ms=until)
        )
        return found.rowcount == 1

    async def _free(self, connection: AsyncConnection, now: int, until: int) -> int:
        free = (
            select(SnowflakeNode.id)
            .where(SnowflakeNode.reserved_ms <= now)
            .order_by(SnowflakeNode.reserved_ms, SnowflakeNode.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        taken = await connection.scalar(
            update(SnowflakeNode)
            .where(SnowflakeNode.id == free.scalar_subquery())
            .values(reserved_ms=until, holder=self._holder)
            .returning(SnowflakeNode.id)
        )
        if taken is None:
            log.critical("keys.no_node_free")
            raise ReservationError
        return int(taken)
