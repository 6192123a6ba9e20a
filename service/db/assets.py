"""Views, functions and triggers: SQL in files of their own, applied by migrations.

`sql/<name>.v<number>.sql` creates or replaces one asset. A file that a migration has applied never changes:
the next version is the next file, and the migration that applies it goes back to the one before.
"""

from pathlib import Path

from alembic import op

SQL = Path(__file__).parent / "sql"
TOUCH = 'CREATE TRIGGER touch_entity BEFORE UPDATE ON "{table}" FOR EACH ROW EXECUTE FUNCTION touch_entity()'
"""Gives an entity's table its trigger."""


def source(name: str, version: int) -> str:
    """The text of an asset. Raises FileNotFoundError."""
    return (SQL / f"{name}.v{version}.sql").read_text(encoding="utf-8")


def apply(name: str, version: int) -> None:
    """Within a migration: create the asset, or replace its other version."""
    op.execute(source(name, version))


def touch(table: str) -> None:
    """Within a migration: give an entity's table its trigger. It goes with the table."""
    op.execute(TOUCH.format(table=table))


def untouch(table: str) -> None:
    """Within a migration: take the trigger away again."""
    op.execute(f'DROP TRIGGER touch_entity ON "{table}"')
