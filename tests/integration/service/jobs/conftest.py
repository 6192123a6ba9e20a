"""The service with its administration."""

from collections.abc import AsyncIterator, Callable

import pytest

from service.settings import Settings
from tests.integration.service.harness import Service, running
from tests.integration.service.jobs.admin import TOKEN, Operator

Configure = Callable[..., Settings]


@pytest.fixture
async def administered(configure: Configure) -> AsyncIterator[Service]:
    """The service with an operators' token."""
    async with running(configure(QUEUE_ADMIN_TOKEN=TOKEN)) as service:
        yield service


@pytest.fixture
def operator(administered: Service) -> Operator:
    return Operator(administered.http)
