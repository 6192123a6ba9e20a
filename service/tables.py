"""Every table, imported so that migrations and checks know them all."""

from service.db.base import Base
from service.db.jobs.control import QueuePause
from service.db.jobs.presence import WorkerPresence
from service.db.jobs.record import JobRecord
from service.db.jobs.schedules import ScheduleRecord
from service.db.keys import SnowflakeNode
from service.features.transactions.models import Transaction

TABLES: tuple[type[Base], ...] = (
    Transaction,
    JobRecord,
    QueuePause,
    WorkerPresence,
    ScheduleRecord,
    SnowflakeNode,
)
METADATA = Base.metadata
