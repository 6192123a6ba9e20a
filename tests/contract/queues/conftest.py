"""Every queue engine, each with a broker that is new and empty for every test.

An engine takes part by a `<name>_broker` fixture, imported here, and its name in ENGINES.
"""

import pytest

from tests.contract.queues.file_broker import file_broker
from tests.contract.queues.harness import Broker
from tests.contract.queues.redis_broker import redis_broker

__all__ = ["file_broker", "redis_broker"]

ENGINES = ("redis", "file")


@pytest.fixture(params=ENGINES)
def broker(request: pytest.FixtureRequest) -> Broker:
    found: Broker = request.getfixturevalue(f"{request.param}_broker")
    return found
