"""Keys over several processes, on a real database: no two alike, whatever clocks and processes do."""

import asyncio
import struct
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from observability import Metrics
from service.db.engine import open_engine
from service.db.keys import AHEAD_MS, Keys
from service.db.session import Database
from service.db.snowflake import NODES, TOLERANCE_MS, ClockError, ReservationError
from service.features.transactions.models import Transaction
from service.settings import DatabaseSettings

REPOSITORY = Path(__file__).parents[3]
PROGRAM = """
import asyncio, struct, sys
from service.db.engine import open_engine
from service.db.keys import Keys
from service.settings import DatabaseSettings

async def main():
    engine = open_engine(DatabaseSettings.model_validate({"url": sys.argv[1]}), "keys")
    keys = Keys("test")
    made = []
    while len(made) < 25_000:
        await keys.reserve(engine)
        made += [keys.next() for _ in range(500)]
    sys.stdout.buffer.write(struct.pack("25000q", *made))
    sys.stdout.flush()
    if sys.argv[2] == "release":
        await keys.release(engine)
    await engine.dispose()

asyncio.run(main())
"""


def database(url: str, **changes: object) -> DatabaseSettings:
    return DatabaseSettings.model_validate({"url": url, **changes})


async def reserved(url: str) -> dict[int, int]:
    """Nodes that somebody has reserved, and until when."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch("SELECT id, reserved_ms FROM snowflake_node WHERE reserved_ms > 0")
    finally:
        await connection.close()
    return {row["id"]: row["reserved_ms"] for row in rows}


def test_processes_at_once_and_one_after_the_other_never_collide(database_url: str) -> None:
    made: list[int] = []
    for end in ("release", "vanish"):
        running = [
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM, database_url, end], stdout=subprocess.PIPE, cwd=REPOSITORY
            )
            for _ in range(4)
        ]
        for process in running:
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 0
            keys = struct.unpack("25000q", output)
            assert list(keys) == sorted(keys)
            made += keys
    assert len(made) == len(set(made)) == 200_000


STEP = st.tuples(
    st.sampled_from(["make", "make", "make", "restart", "vanish", "clock"]),
    st.integers(0, 3),
    st.sampled_from([-86_400_000, -AHEAD_MS, -TOLERANCE_MS - 1, -5, 1, 5, AHEAD_MS, 86_400_000]),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEP, min_size=5, max_size=60))
def test_whatever_clocks_and_processes_do_no_key_is_made_twice(
    database_url: str, steps: list[tuple[str, int, int]]
) -> None:
    """Four processes with a clock each. Any may end in order or vanish, any clock may jump by up to a day."""
    made: list[int] = []

    async def play() -> None:
        engine = open_engine(database(database_url), "keys")
        offsets = [0] * 4
        origin = 60_000_000_000

        def started(number: int) -> Keys:
            return Keys(f"process {number}", clock=lambda: origin + offsets[number])

        async with engine.begin() as connection:
            # Three nodes only: they are to be fought for.
            await connection.execute(text("DELETE FROM snowflake_node WHERE id > 2"))
            await connection.execute(text("UPDATE snowflake_node SET reserved_ms = 0"))
        processes = [started(number) for number in range(4)]
        latest = [0] * 4
        for action, number, jump in steps:
            match action:
                case "make":
                    try:
                        await processes[number].reserve(engine)
                        keys = [processes[number].next() for _ in range(3)]
                    except (ClockError, ReservationError):
                        continue
                    assert latest[number] < keys[0] < keys[1] < keys[2]
                    latest[number] = keys[-1]
                    made.extend(keys)
                case "restart" | "vanish":
                    if action == "restart":
                        await processes[number].release(engine)
                    processes[number], latest[number] = started(number), 0
                case "clock":
                    offsets[number] += jump
        await engine.dispose()

    asyncio.run(play())
    assert len(made) == len(set(made))


async def test_a_process_keeps_its_node_and_gives_it_back(database_url: str) -> None:
    now = 60_000_000_000
    engine = open_engine(database(database_url), "keys")
    keys = Keys("me", clock=lambda: now)
    with pytest.raises(ReservationError):
        keys.next()
    await asyncio.gather(*(keys.reserve(engine) for _ in range(20)))
    assert await reserved(database_url) == {0: now + AHEAD_MS}
    first = keys.next()
    now += AHEAD_MS * 2
    with pytest.raises(ReservationError):
        keys.next()
    await keys.reserve(engine)
    assert await reserved(database_url) == {0: now + AHEAD_MS}
    second = keys.next()
    assert first < second
    await keys.release(engine)
    assert await reserved(database_url) == {0: second >> 22}
    with pytest.raises(ReservationError):
        keys.next()
    await keys.release(engine)
    await engine.dispose()


async def test_no_node_free_and_a_clock_before_the_epoch_are_refused(database_url: str) -> None:
    engine = open_engine(database(database_url), "keys")
    with pytest.raises(ClockError):
        await Keys("early", clock=lambda: -1).reserve(engine)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE snowflake_node SET reserved_ms = 61000000000"))
    with pytest.raises(ReservationError):
        await Keys("late", clock=lambda: 60_000_000_000).reserve(engine)
    await engine.dispose()


async def test_every_node_can_be_held_and_the_next_process_is_refused(database_url: str) -> None:
    engine = open_engine(database(database_url), "keys")
    clock = 60_000_000_000
    holders = [Keys(str(number), clock=lambda: clock) for number in range(NODES)]
    for holder in holders:
        await holder.reserve(engine)
    assert len({holder.next() for holder in holders}) == NODES
    with pytest.raises(ReservationError):
        await Keys("one too many", clock=lambda: clock).reserve(engine)
    await holders[17].release(engine)
    clock += 1
    await Keys("in its place", clock=lambda: clock).reserve(engine)
    await engine.dispose()


async def test_a_clock_far_back_is_unavailable_for_writes_and_for_the_probe(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind = 0
    opened = Database(
        database(database_url), application="t", metrics=Metrics(CollectorRegistry(), "yardstick")
    )
    real = opened._keys._clock
    monkeypatch.setattr(opened._keys, "_clock", lambda: real() - behind)

    async def add() -> None:
        async with opened.unit() as unit:
            unit.session.add(Transaction(amount=1, currency="EUR", reference="x"))

    await add()
    assert opened._keys._snowflake is not None
    monkeypatch.setattr(opened._keys._snowflake, "_clock", lambda: real() - behind)
    await opened.ping()
    behind = TOLERANCE_MS + 5_000
    with pytest.raises(ClockError):
        await add()
    with pytest.raises(ClockError):
        await opened.ping()
    behind = 0
    await add()
    await opened.ping()
    await opened.close()


async def test_the_database_can_tell_the_time_of_a_key(database_url: str) -> None:
    engine = open_engine(database(database_url), "keys")
    keys = Keys("me", clock=lambda: 86_400_000)
    await keys.reserve(engine)
    async with engine.connect() as connection:
        found = await connection.scalar(text("SELECT snowflake_time(:key)"), {"key": keys.next()})
    assert str(found) == "2025-01-02 00:00:00.001000+00:00"
    await engine.dispose()


async def test_a_node_taken_during_a_long_pause_is_not_taken_back(database_url: str) -> None:
    now = 60_000_000_000
    engine = open_engine(database(database_url), "keys")
    async with engine.begin() as connection:
        await connection.execute(text("DELETE FROM snowflake_node WHERE id > 0"))
    paused, other = (Keys(name, clock=lambda: now) for name in ("paused", "other"))
    await paused.reserve(engine)
    paused.next()
    now += AHEAD_MS + 1
    await other.reserve(engine)
    with pytest.raises(ReservationError):
        await paused.reserve(engine)
    with pytest.raises(ReservationError):
        paused.next()
    await paused.release(engine)
    assert await reserved(database_url) == {0: now + AHEAD_MS}
    await engine.dispose()
