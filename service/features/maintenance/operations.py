"""Removing what has expired, in batches of one transaction each: what is removed stays so."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from sqlalchemy import ColumnElement, FromClause, MetaData, Table, delete, exists, select
from sqlalchemy.sql.dml import ReturningDelete

from service.db.session import Database
from service.infra.storage.interface import Storage

BATCH = 1000
_GIVES_WAY = ("CASCADE", "SET NULL", "SET DEFAULT")


async def remove_deleted(
    database: Database, tables: Iterable[Table], metadata: MetaData, *, before: datetime
) -> dict[str, int]:
    """Remove rows of these tables that were soft-deleted before that time; gives how many, by table.

    Rows that another table still refers to stay until it does not. Raises UnavailableError.
    """
    wanted = set(tables)
    # Those that refer to others go first, so that what they referred to can go in the same run.
    ordered = [table for table in reversed(metadata.sorted_tables) if table in wanted]
    removed = dict.fromkeys((table.name for table in ordered), 0)
    for table in ordered:
        statement = _expired(table, metadata, before)
        while True:
            async with database.unit() as unit:
                found = len((await unit.session.execute(statement)).all())
            removed[table.name] += found
            if found < BATCH:
                break
    return removed


def _expired(table: Table, metadata: MetaData, before: datetime) -> ReturningDelete[tuple[int]]:
    """On the table itself, past the filter that hides deleted rows from the ORM."""
    row = table.alias("row")
    chosen = (
        select(row.c.id)
        .where(row.c.deleted_at < before, *_unreferenced(row, table, metadata))
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    return delete(table).where(table.c.id.in_(chosen.scalar_subquery())).returning(table.c.id)


def _unreferenced(row: FromClause, table: Table, metadata: MetaData) -> Iterator[ColumnElement[bool]]:
    """For each reference to the table that the database would refuse to break."""
    for other in metadata.sorted_tables:
        for key in other.foreign_keys:
            if key.column.table is table and (key.ondelete or "").upper() not in _GIVES_WAY:
                referring = other.alias()
                yield ~exists().where(referring.c[key.parent.name] == row.c[key.column.name])


async def remove_files(storage: Storage, folder: str, *, before: datetime) -> int:
    """Remove the files below a folder that were last written before that time; gives how many.

    Raises StorageUnavailableError; what was removed until then stays so.
    """
    removed, after = 0, ""
    while page := await storage.list(folder, limit=BATCH, after=after):
        for entry in page:
            if entry.modified_at < before:
                await storage.delete(entry.key)
                removed += 1
        after = page[-1].key
    return removed
