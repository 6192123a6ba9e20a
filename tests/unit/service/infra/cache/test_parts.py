"""Lives, priorities, codec and shared loads, without a server."""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.infra.cache.codec import Codec
from service.infra.cache.domains import Domain, Priority, domains
from service.infra.cache.errors import CorruptEntryError, UnencodableError
from service.infra.cache.flights import Flights
from service.settings import CacheSettings


class Money(BaseModel):
    model_config = ConfigDict(frozen=True)

    amount: Decimal
    at: datetime
    note: str | None = Field(None, validation_alias="public_note", serialization_alias="noteText")


def test_the_table_is_that_of_the_specification() -> None:
    table = domains(CacheSettings())
    assert {name: domain.ttl for name, domain in table.items()} == {
        "permissions": 900, "users": 1800, "settings": 3600, "sessions": 86_400, "transactions": 300,
    }  # fmt: skip
    ranks = sorted(table.values(), key=lambda domain: -domain.priority)
    assert [domain.name for domain in ranks][-1] == "transactions"
    assert {domain.name for domain in ranks[:2]} == {"permissions", "sessions"}


@given(st.floats(1, 1e6), st.floats(0, 0.9))
def test_a_life_is_never_longer_than_the_ttl_nor_shorter_than_the_jitter_allows(
    ttl: float, jitter: float
) -> None:
    life = Domain("x", ttl, Priority.LOW, 0, jitter).lifetime()
    assert ttl * (1 - jitter) * 0.999 <= life <= ttl


def test_the_low_mark_of_memory_is_not_above_the_high_one() -> None:
    with pytest.raises(ValidationError, match="CACHE_MEMORY_HIGH"):
        CacheSettings.model_validate({"memory_low": 0.9, "memory_high": 0.8})


@given(
    st.builds(
        Money,
        amount=st.decimals(allow_nan=False, allow_infinity=False),
        at=st.datetimes(timezones=st.just(UTC)),
    )
)
def test_a_model_comes_back_as_it_was(value: Money) -> None:
    codec: Codec[Money] = Codec(Money)
    assert codec.decode(codec.encode(value)) == value


def test_aliases_do_not_stand_in_the_way() -> None:
    codec: Codec[Money] = Codec(Money)
    value = Money.model_validate(
        {"amount": "1.50", "at": datetime(2026, 1, 1, tzinfo=UTC), "public_note": "n"}
    )
    assert value.note == "n"
    assert codec.decode(codec.encode(value)) == value


@pytest.mark.parametrize("raw", [b"", b"{", b"null", b"7", b'{"amount": "x"}', b"\xff", b"{}"])
def test_what_does_not_fit_is_corrupt_and_is_not_repeated(raw: bytes) -> None:
    with pytest.raises(CorruptEntryError) as caught:
        Codec(Money).decode(raw)
    assert "x" not in str(caught.value).removeprefix("not what was stored")


@pytest.mark.parametrize("value", [object(), {"a": 1}, 7, {1, 2}])
def test_what_is_not_of_the_type_is_not_written(value: object) -> None:
    with pytest.raises(UnencodableError):
        Codec(Money).encode(value)  # type: ignore[arg-type]


async def test_who_comes_while_a_load_runs_shares_the_next_one() -> None:
    flights, gate, calls = Flights(), asyncio.Event(), 0

    async def load() -> int:
        nonlocal calls
        calls += 1
        mine = calls
        await gate.wait()
        return mine

    first = asyncio.create_task(flights.fresh("k", load))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    others = [asyncio.create_task(flights.fresh("k", load)) for _ in range(50)]
    await asyncio.sleep(0)
    elsewhere = asyncio.create_task(flights.fresh("other", load))
    await asyncio.sleep(0.01)
    gate.set()
    assert await first == 1
    assert set(await asyncio.gather(*others)) == {3}
    assert await elsewhere == 2


async def test_a_failed_load_fails_those_who_share_it_and_not_the_next() -> None:
    flights = Flights()

    async def fail() -> int:
        raise LookupError

    async def work() -> int:
        return 1

    found = await asyncio.gather(*(flights.fresh("k", fail) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in found] == [LookupError] * 3
    assert await flights.fresh("k", work) == 1


async def test_closing_waits_for_loads_and_cancels_those_that_do_not_end() -> None:
    flights, done = Flights(), []

    async def short() -> None:
        await asyncio.sleep(0.01)
        done.append("short")

    for work in (short(), asyncio.sleep(60)):
        flights.keep(asyncio.create_task(work))
    await asyncio.wait_for(flights.close(0.2), 2)
    assert done == ["short"]
