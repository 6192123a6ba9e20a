"""Alembic's entry: runs the migrations on the connection that `service.db.migrate` opened."""

from alembic import context
from sqlalchemy import Connection, text

from service.tables import METADATA

LOCK = 7_140_251_103

connection: Connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=METADATA, compare_server_default=True)
with context.begin_transaction():
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK})
    context.run_migrations()
