"""Deleted entities are not there, unless a statement asks for them."""

from types import MappingProxyType

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState, Session, with_loader_criteria

from service.db.base import Entity

INCLUDE_DELETED = MappingProxyType({"include_deleted": True})
"""`select(Thing).execution_options(**INCLUDE_DELETED)` sees deleted rows too."""


class EntitySession(Session):
    """A session whose ORM statements leave out what is deleted.

    Selects, joins, aliases and relationships, and updates and deletes of many rows as well. Not: SQL written
    as text, `insert`, and the refresh of an entity that is already loaded.
    """


@event.listens_for(EntitySession, "do_orm_execute")
def _leave_out_deleted(state: ORMExecuteState) -> None:
    wanted = state.is_select or state.is_update or state.is_delete
    # A relationship's load takes the criteria over from the statement that it belongs to.
    if not wanted or state.is_column_load or state.is_relationship_load:
        return
    if not state.execution_options.get("include_deleted", False):
        state.statement = state.statement.options(
            with_loader_criteria(Entity, lambda entity: entity.deleted_at.is_(None), include_aliases=True)
        )
