"""`GET /v1/transactions/{id}` with its cache, and the statistics endpoint."""

from collections.abc import Callable
from uuid import UUID, uuid4

import asyncpg
import pytest

from service.infra.event_bus import Event
from service.settings import Settings
from tests.integration.service.harness import Service, eventually, running

Configure = Callable[..., Settings]


@pytest.fixture
def unwarmed(configure: Configure) -> Settings:
    return configure(CACHE_WARM_SECONDS=3600)


def reads(service: Service, outcome: str) -> float:
    labels = {"domain": "transactions", "outcome": outcome}
    return service.metric("yardstick_cache_requests_total", labels) or 0.0


async def test_a_pending_transaction_is_read_afresh_until_it_is_settled(unwarmed: Settings) -> None:
    async with running(unwarmed) as service:
        created = await service.create()
        for _ in range(3):
            assert (await service.transaction(created["id"]))["status"] == "pending"
        assert (reads(service, "miss"), reads(service, "hit")) == (3, 0)
        async with service.working():
            settled = await service.settled(created["id"])
        before = reads(service, "hit")
        found = [await service.transaction(created["id"]) for _ in range(3)]
        assert found == [settled] * 3, "what the cache gives is what the database gave"
        assert reads(service, "hit") - before >= 2


async def test_a_settled_one_is_served_without_the_database(unwarmed: Settings, database_url: str) -> None:
    async with running(unwarmed) as service:
        created = await service.create()
        async with service.working():
            await service.settled(created["id"])
        settled = await service.transaction(created["id"])  # from here on it is in the cache
        connection = await asyncpg.connect(database_url)
        await connection.execute("ALTER TABLE transaction RENAME TO away")
        assert await service.transaction(created["id"]) == settled
        await connection.execute("ALTER TABLE away RENAME TO transaction")
        await connection.close()


async def test_an_event_makes_the_next_read_see_the_change(unwarmed: Settings, database_url: str) -> None:
    async with running(unwarmed) as service:
        created = await service.create()
        async with service.working():
            await service.settled(created["id"])
        await service.transaction(created["id"])  # from here on it is in the cache
        connection = await asyncpg.connect(database_url)
        await connection.execute("UPDATE transaction SET reference = 'changed'")
        await connection.close()
        assert (await service.transaction(created["id"]))["reference"] == "invoice 1"
        service.container.bus.publish(Event("transaction.corrected", {}, subject=created["id"]))

        async def seen() -> bool:
            return bool((await service.transaction(created["id"]))["reference"] == "changed")

        await eventually(seen, within=5)


async def test_what_is_not_there_is_404_from_the_cache_too(unwarmed: Settings) -> None:
    async with running(unwarmed) as service:
        unknown = uuid4()
        for _ in range(3):
            answer = await service.http.get(f"/v1/transactions/{unknown}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert (reads(service, "miss"), reads(service, "negative")) == (1, 2)


async def test_without_redis_transactions_are_read_from_the_database(configure: Configure) -> None:
    async with running(configure(REDIS_URL="redis://127.0.0.1:1/0")) as service:
        created = await service.create()
        for _ in range(5):
            assert (await service.transaction(created["id"]))["status"] == "pending"
        assert reads(service, "error") == 5
        answer = await service.http.get("/v1/cache/statistics")
        assert answer.json()["data"]["scope"] == "instance"


async def test_the_newest_settled_ones_are_warm(unwarmed: Settings) -> None:
    async with running(unwarmed) as service:
        created = [await service.create() for _ in range(3)]
        async with service.working():
            for transaction in created:
                await service.settled(transaction["id"])
        await service.container.cache.clear("transactions")
        await service.container.store.delete("cache:once:warming")
        assert await service.container.cache.warm() == ["transactions.recent"]
        before = reads(service, "hit")
        for transaction in created:
            assert await service.container.transaction_views.get(UUID(transaction["id"])) is not None
        assert reads(service, "hit") - before == 3


async def test_the_statistics_have_every_domain(unwarmed: Settings) -> None:
    async with running(unwarmed) as service:
        unknown = uuid4()
        for _ in range(4):
            await service.http.get(f"/v1/transactions/{unknown}")
        answer = await service.http.get("/v1/cache/statistics")
        assert answer.status_code == 200
        data = answer.json()["data"]
        assert data["scope"] == "cluster"
        domains = {domain["domain"]: domain for domain in data["domains"]}
        assert {name: domain["ttlSeconds"] for name, domain in domains.items()} == {
            "permissions": 900, "sessions": 86_400, "users": 1800, "settings": 3600, "transactions": 300,
        }  # fmt: skip
        found = domains["transactions"]
        assert (found["hits"], found["misses"], found["hitRate"]) == (3, 1, 0.75)
        assert (found["priority"], found["evictions"], found["errors"]) == ("low", 0, 0)


async def test_in_production_the_statistics_are_not_served_unless_wanted(configure: Configure) -> None:
    settings = configure()
    production = settings.app.model_copy(update={"env": "production"})
    for wanted, status in ((None, 404), (True, 200), (False, 404)):
        cache = settings.cache.model_copy(update={"statistics_endpoint": wanted})
        changed = Settings(
            **{name: getattr(settings, name) for name in Settings.__slots__}
            | {"app": production, "cache": cache}
        )
        async with running(changed) as service:
            answer = await service.http.get("/v1/cache/statistics")
            assert answer.status_code == status
