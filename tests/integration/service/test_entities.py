"""What every entity can do, on tables that only this test has."""

from datetime import datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import ForeignKey, MetaData, delete, func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, aliased, joinedload, mapped_column, relationship, selectinload
from sqlalchemy.orm.exc import StaleDataError

from service.db import assets
from service.db.base import Base, Entity
from service.db.session import Database, UnitOfWork
from service.db.soft_delete import INCLUDE_DELETED
from tests.integration.service.harness import Service


class Shelf(Entity):
    __tablename__ = "test_shelf"
    metadata = MetaData(naming_convention=Base.metadata.naming_convention)

    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship(back_populates="shelf", order_by="Book.title")


class Book(Entity):
    __tablename__ = "test_book"
    metadata = Shelf.metadata

    title: Mapped[str]
    read_at: Mapped[datetime | None]
    shelf_id: Mapped[int] = mapped_column(ForeignKey(Shelf.id))
    shelf: Mapped[Shelf] = relationship(back_populates="books")


@pytest.fixture
async def library(service: Service) -> Database:
    """A database with a shelf of three books, of which `b` is deleted."""
    database = service.container.database
    async with database.engine.begin() as connection:
        await connection.run_sync(Shelf.metadata.create_all)
        for table in (Shelf, Book):
            await connection.execute(text(assets.TOUCH.format(table=table.__tablename__)))
    async with database.unit() as unit:
        shelf = Shelf(name="s", books=[Book(title=title) for title in "abc"])
        unit.session.add(shelf)
        await unit.session.flush()
        await unit.delete(shelf.books[1])
    return database


async def book(unit: UnitOfWork, title: str) -> Book:
    found = await unit.session.scalar(
        select(Book).where(Book.title == title).execution_options(**INCLUDE_DELETED)
    )
    assert found is not None
    return found


async def test_an_entity_has_its_columns_from_the_start(library: Database) -> None:
    async with library.unit() as unit:
        found = Book(title="new", shelf=await unit.session.scalar(select(Shelf)))
        unit.session.add(found)
        await unit.session.flush()
        assert 0 < found.id < 1 << 63
        assert isinstance(found.public_id, UUID)
        assert found.created_at == found.updated_at
        assert (found.deleted_at, found.version) == (None, 1)


async def test_queries_do_not_see_what_is_deleted(library: Database) -> None:
    async with library.unit() as unit:
        session = unit.session
        assert list(await session.scalars(select(Book.title).order_by(Book.title))) == ["a", "c"]
        assert await session.scalar(select(func.count()).select_from(Book)) == 2
        assert await session.scalar(select(func.count(Book.id))) == 2
        other = aliased(Book)
        assert list(await session.scalars(select(other.title).order_by(other.title))) == ["a", "c"]
        joined = select(Book.title).join(Shelf.books).where(Shelf.name == "s").order_by(Book.title)
        assert list(await session.scalars(joined)) == ["a", "c"]
        assert not await session.scalar(select(select(Book).where(Book.title == "b").exists()))
        gone = await book(unit, "b")
        session.expunge_all()
        assert await session.get(Book, gone.id) is None
    for load in (selectinload(Shelf.books), joinedload(Shelf.books)):
        async with library.unit() as unit:
            shelf = await unit.session.scalar(select(Shelf).options(load))
            assert shelf is not None
            assert [b.title for b in shelf.books] == ["a", "c"]


async def test_who_asks_sees_deleted_ones_too(library: Database) -> None:
    async with library.unit() as unit:
        everything = select(Book.title).order_by(Book.title).execution_options(**INCLUDE_DELETED)
        assert list(await unit.session.scalars(everything)) == ["a", "b", "c"]
        shelf = await unit.session.scalar(
            select(Shelf).options(selectinload(Shelf.books)).execution_options(**INCLUDE_DELETED)
        )
        assert shelf is not None
        assert [b.title for b in shelf.books] == ["a", "b", "c"]


async def test_a_deleted_entity_can_be_refreshed_and_restored(library: Database) -> None:
    async with library.unit() as unit:
        gone = await book(unit, "b")
        assert gone.deleted_at is not None
        assert gone.version == 2
        await unit.session.refresh(gone)
        await unit.restore(gone)
        assert gone.version == 3
        assert len(list(await unit.session.scalars(select(Book)))) == 3
    async with library.unit() as unit:
        again = await book(unit, "b")
        await unit.delete(again)
        await unit.delete(again)
        assert again.deleted_at is not None


async def test_changes_of_many_rows_leave_deleted_ones_alone(library: Database) -> None:
    async with library.unit() as unit:
        changed = await unit.session.scalars(
            update(Book).values(title=Book.title + "!").returning(Book.title)
        )
        assert set(changed) == {"a!", "c!"}
        removed = await unit.session.scalars(delete(Book).returning(Book.title))
        assert set(removed) == {"a!", "c!"}
    async with library.unit() as unit:
        left = select(Book.title).execution_options(**INCLUDE_DELETED)
        assert list(await unit.session.scalars(left)) == ["b"]


async def test_sql_by_hand_takes_part_in_time_and_version(library: Database) -> None:
    async def write_by_hand() -> None:
        async with library.unit() as unit:
            mine = await book(unit, "a")
            before = mine.updated_at
            async with library.engine.begin() as connection:
                await connection.execute(text("UPDATE test_book SET title = 'z' WHERE title = 'a'"))
            fresh = select(Book.updated_at, Book.version).where(Book.id == mine.id)
            after, version = (await unit.session.execute(fresh)).one()
            assert after > before
            assert version == 2
            mine.title = "too late"

    with pytest.raises(StaleDataError):
        await write_by_hand()


async def test_the_service_counts_the_version_once(library: Database) -> None:
    async with library.unit() as unit:
        found = await book(unit, "a")
        before = found.updated_at
        found.title = "changed"
        await unit.session.flush()
        assert found.version == 2
        assert found.updated_at > before
        await unit.session.refresh(found)
        assert found.version == 2


async def test_a_deleted_row_lost_to_another_is_stale(library: Database) -> None:
    async def late() -> None:
        async with library.unit() as slow:
            mine = await book(slow, "a")
            async with library.unit() as fast:
                await fast.delete(await book(fast, "a"))
            await slow.delete(mine)

    with pytest.raises(StaleDataError):
        await late()


async def test_a_unit_is_all_or_nothing(library: Database) -> None:
    called: list[str] = []

    async def broken() -> None:
        async with library.unit() as unit:
            unit.after_commit(lambda: called.append("never"))
            (await book(unit, "a")).title = "changed"
            await unit.session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await broken()
    async with library.unit() as unit:
        unit.after_commit(lambda: called.append("once"))
        await book(unit, "a")
        assert called == []
    assert called == ["once"]


async def test_a_public_id_is_there_once(library: Database) -> None:
    same = uuid4()
    async with library.unit() as unit:
        shelf = Shelf(name="t", public_id=same)
        unit.session.add(shelf)

    async def again() -> None:
        async with library.unit() as unit:
            unit.session.add(Shelf(name="u", public_id=same))

    with pytest.raises(IntegrityError):
        await again()
