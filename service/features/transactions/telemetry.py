"""What a transaction tells: log events, the business counter, the span of its effect, events on the bus."""

from collections.abc import Iterator
from contextlib import contextmanager

from observability import Telemetry, current, get_logger
from service.features.transactions.models import Transaction
from service.features.transactions.schemas import plain_amount
from service.infra.event_bus import Event, EventBus

log = get_logger(__name__)


class TransactionSignals:
    """One per process. Call `created` and `settled` after the commit: what was rolled back did not happen."""

    def __init__(self, telemetry: Telemetry, bus: EventBus) -> None:
        self._bus = bus
        self._tracer = telemetry.tracer
        self._count = telemetry.metrics.counter(
            "transactions", "Transactions by the status they reached.", ("status", "currency")
        )

    def created(self, transaction: Transaction) -> None:
        self._reached("transaction.created", transaction)

    def settled(self, transaction: Transaction) -> None:
        self._reached("transaction.settled", transaction)

    @contextmanager
    def settling(self, transaction_id: str) -> Iterator[None]:
        """The span `transaction.settle`, around the effect and its statements."""
        with self._tracer.start_as_current_span(
            "transaction.settle", attributes={"yardstick.transaction.id": transaction_id}
        ):
            yield

    def _reached(self, event: str, transaction: Transaction) -> None:
        self._count.labels(transaction.status, transaction.currency).inc()
        log.info(
            event,
            transactionId=str(transaction.public_id),
            amount=str(transaction.amount),
            currency=transaction.currency,
        )
        caller = current()
        self._bus.publish(
            Event(
                event,
                {
                    "status": transaction.status,
                    "version": transaction.version,
                    "amount": plain_amount(transaction.amount),
                    "currency": transaction.currency,
                },
                subject=str(transaction.public_id),
                user=caller.user_id,
                tenant=caller.tenant,
            )
        )
