"""Makes the table stand in the broker; again, it changes nothing."""

from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import ChannelPreconditionFailed

from service.infra.queues.rabbitmq.topology import Topology, TopologyError


async def declare(connection: AbstractConnection, topology: Topology) -> None:
    """Declare every exchange, queue and binding, over a channel of its own.

    Raises:
        TopologyError: one is there with other arguments. What is right beside it stays declared.
    """
    channel = await connection.channel(publisher_confirms=False)
    try:
        await _declare(channel, topology)
    finally:
        if not channel.is_closed:
            await channel.close()


async def _declare(channel: AbstractChannel, topology: Topology) -> None:
    raw = await channel.get_underlay_channel()
    thing = ""
    try:
        for exchange in topology.exchanges:
            thing = f"exchange {exchange}"
            await raw.exchange_declare(exchange, exchange_type="topic", durable=True)
        for queue in topology.queues:
            thing = f"queue {queue.name}"
            await raw.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments))
    except ChannelPreconditionFailed as error:
        raise TopologyError(
            f"{thing} is in the broker already, and not as QUEUE_RABBITMQ_TYPE={topology.type} has it:"
            f" {error}. The broker cannot change it. Let its jobs be finished by the old settings, then"
            f" delete it (rabbitmqctl delete_queue, or the management page); it is made anew by itself. Or"
            f" go back to the earlier setting, or set another QUEUE_NAME."
        ) from error
    for binding in topology.bindings:
        bind = raw.queue_bind if binding.to == "queue" else raw.exchange_bind
        await bind(binding.target, binding.source, binding.key)
