"""The `rabbitmq` engine: durable queues by domain, a ladder of TTL queues for delays, publisher confirms."""

from service.infra.queues.rabbitmq.queue import RabbitQueue
from service.infra.queues.rabbitmq.topology import QueueType, Topology, TopologyError

__all__ = ["QueueType", "RabbitQueue", "Topology", "TopologyError"]
