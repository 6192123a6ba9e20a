"""The service with its administration, and what it takes to have it on each queue engine."""

import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from service.settings import Settings
from tests.contract.queues.rabbitmq_broker import RabbitBroker, amqp_url
from tests.integration.service.harness import Service, running
from tests.integration.service.jobs.admin import TOKEN, Operator

__all__ = ["amqp_url"]

Configure = Callable[..., Settings]


@pytest.fixture
async def administered(configure: Configure) -> AsyncIterator[Service]:
    """The service with an operators' token."""
    async with running(configure(QUEUE_ADMIN_TOKEN=TOKEN)) as service:
        yield service


@pytest.fixture
def operator(administered: Service) -> Operator:
    return Operator(administered.http)


@pytest.fixture(params=["redis", "rabbitmq", "file"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[dict[str, object]]:
    """The variables that choose an engine; what it declares in a shared broker is removed afterwards."""
    found: dict[str, object] = {"QUEUE_ENGINE": request.param}
    if request.param == "file":
        found["QUEUE_FILE_PATH"] = tmp_path / "queue.db"
    if request.param != "rabbitmq":
        yield found
        return
    broker = RabbitBroker(request.getfixturevalue("amqp_url"))
    broker.name = f"pausing-{uuid.uuid4().hex[:8]}"
    yield found | {"QUEUE_RABBITMQ_URL": broker.url, "QUEUE_NAME": broker.name}
    await broker.close()
