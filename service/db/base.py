"""What every table shares, and what every entity has."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import BigInteger, DateTime, FetchedValue, MetaData, Uuid, func
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

KEYS_OPTION = "snowflake"
"""Execution option under which `Database` hands its key generator to the column default below."""


def next_key(context: DefaultExecutionContext) -> int:
    key: int = context.execution_options[KEYS_OPTION].next()
    return key


class Base(DeclarativeBase):
    """A table with a Snowflake primary key that never leaves the service."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_label)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy as a class attribute
        datetime: DateTime(timezone=True),
        UUID: Uuid(),
    }

    id: Mapped[int] = mapped_column(
        BigInteger, primary_key=True, autoincrement=False, default=next_key, sort_order=-10
    )


class Entity(Base):
    """A domain's table: public UUID, times, soft delete and an optimistic lock.

    An update of a row that someone else changed since it was read is a `StaleDataError`, answered with 409.
    The table's migration gives it the trigger `touch_entity` (`service.db.assets`): it sets `updated_at`, and
    counts `version` up for writers that do not, so that SQL by hand takes part in both.
    """

    __abstract__ = True

    public_id: Mapped[UUID] = mapped_column(default=uuid4, unique=True, sort_order=-9)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), sort_order=90)
    updated_at: Mapped[datetime] = mapped_column(
        server_default=func.now(), server_onupdate=FetchedValue(), sort_order=91
    )
    deleted_at: Mapped[datetime | None] = mapped_column(sort_order=92)
    version: Mapped[int] = mapped_column(sort_order=93)

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805 - SQLAlchemy calls it on the class
        return {"version_id_col": cls.version, "eager_defaults": True}
