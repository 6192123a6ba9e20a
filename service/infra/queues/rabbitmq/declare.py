"""Makes the table stand in the broker; again, it changes nothing."""

from collections.abc import Awaitable, Callable

from aio_pika.abc import AbstractChannel, AbstractConnection
from aio_pika.exceptions import AMQPError, ChannelPreconditionFailed

from service.infra.queues.rabbitmq.topology import Topology, TopologyError


async def declare(connection: AbstractConnection, topology: Topology) -> None:
    """Declare every exchange, queue and binding, over channels of its own.

    All is sent at once, and one question at the end says whether the broker took it: a reconnection costs a
    round trip and not one for each declaration. Where it did not, they are made one by one, to name the one.

    Raises:
        TopologyError: one is there with other arguments. What is right beside it stays declared.
    """
    if not await _attempt(connection, _declare_all, topology):
        await _attempt(connection, _declare_each, topology)


async def _attempt(
    connection: AbstractConnection,
    work: Callable[[AbstractChannel, Topology], Awaitable[bool]],
    topology: Topology,
) -> bool:
    channel = await connection.channel(publisher_confirms=False)
    try:
        return await work(channel, topology)
    finally:
        if not channel.is_closed:
            await channel.close()


async def _declare_all(channel: AbstractChannel, topology: Topology) -> bool:
    raw = await channel.get_underlay_channel()
    try:
        for exchange in topology.exchanges:
            await raw.exchange_declare(exchange, exchange_type="topic", durable=True, nowait=True)
        for queue in topology.queues:
            await raw.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments), nowait=True)
        for binding in topology.bindings:
            bind = raw.queue_bind if binding.to == "queue" else raw.exchange_bind
            await bind(binding.target, binding.source, binding.key, nowait=True)
        await raw.basic_qos(prefetch_count=1)
    except (AMQPError, RuntimeError):
        return False
    return True


async def _declare_each(channel: AbstractChannel, topology: Topology) -> bool:
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
    return True
