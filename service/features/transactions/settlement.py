"""The settlement job's name, payload and options: what is needed to ask for it."""

from uuid import UUID

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from service.infra.queues.interface import JobKind, JobOptions


class SettlementPayload(BaseModel):
    """Which transaction to settle."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    transaction_id: UUID


SETTLEMENT = JobKind(
    "transaction.settlement.v1",
    SettlementPayload,
    JobOptions(attempts=5, backoff_seconds=5.0, timeout_seconds=30.0),
)
