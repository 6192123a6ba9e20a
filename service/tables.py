"""Every table, imported so that migrations and checks know them all."""

from service.db.base import Base
from service.db.dead_jobs import DeadJob
from service.db.effects import JobEffect
from service.db.keys import SnowflakeNode
from service.db.outbox import OutboxEntry
from service.features.transactions.models import Transaction

TABLES: tuple[type[Base], ...] = (Transaction, OutboxEntry, JobEffect, DeadJob, SnowflakeNode)
METADATA = Base.metadata
