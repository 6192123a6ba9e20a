"""Transactions as clients see them, cached from the moment they are final."""

from collections.abc import Iterable, Mapping
from uuid import UUID

from service.db.session import Database
from service.features.transactions import repository
from service.features.transactions.models import MOVES, TransactionStatus
from service.features.transactions.repository import TransactionFilter
from service.features.transactions.schemas import TransactionView
from service.http.pagination import MAX_LIMIT, Page
from service.infra.cache import Cache, cached, invalidate_on
from service.infra.event_bus import Event, EventBus

DOMAIN = "transactions"


def is_final(view: TransactionView) -> bool:
    """Whether nothing can happen to it any more. The others are read afresh: clients poll for them."""
    return not MOVES[view.status]


def _changed(event: Event) -> Iterable[str]:
    """Nobody can have asked for an ID that was just made."""
    return () if event.topic == "transaction.created" else (event.subject,)


class TransactionViews:
    """Reads single transactions, with a unit of work of its own where the cache has none."""

    def __init__(self, cache: Cache, database: Database, bus: EventBus) -> None:
        self.cache = cache
        self._database = database
        region = cache.region(DOMAIN, TransactionView)
        invalidate_on(bus, "transaction.*", region, keys=_changed)
        cache.warm_up("transactions.recent", region, self._recent)

    @cached(DOMAIN, key="{public_id}", keep=is_final)
    async def get(self, public_id: UUID) -> TransactionView | None:
        """The transaction; None if there is none. Raises UnavailableError."""
        async with self._database.unit() as unit:
            found = await repository.find(unit, public_id)
            return None if found is None else TransactionView.model_validate(found)

    async def _recent(self) -> Mapping[str, TransactionView]:
        """The newest final ones: those that the list shows first and that are asked for next."""
        views: dict[str, TransactionView] = {}
        for status in (status for status in TransactionStatus if not MOVES[status]):
            async with self._database.unit() as unit:
                page = await repository.list_page(
                    unit, TransactionFilter(status), "-createdAt", Page(limit=MAX_LIMIT)
                )
            views |= {str(row.public_id): TransactionView.model_validate(row) for row in page.items}
        return views
