"""Many commands in few round trips."""

from collections.abc import Awaitable, Generator
from typing import Any, Generic, TypeVar

from service.infra.redis.commands import Command, Commands
from service.infra.redis.faults import RedisFault
from service.infra.redis.keys import Keyspace
from service.infra.redis.transport import Transport
from service.infra.redis.values import Values

T = TypeVar("T")

BATCH = 100


class Reply(Generic[T]):
    """The reply of one command of a pipeline, to be awaited after `execute`."""

    __slots__ = ("_command", "_reply", "_there")

    def __init__(self, command: Command[T]) -> None:
        self._command = command
        self._there = False
        self._reply: Any = None

    def arrive(self, reply: Any) -> None:
        self._reply, self._there = reply, True

    def result(self) -> T:
        """Raises RedisFault for what the server refused, RuntimeError when it was not executed."""
        if not self._there:
            raise RuntimeError(f"{self._command.name} was not executed")
        if isinstance(self._reply, RedisFault):
            raise self._reply
        return self._command.parse(self._reply)

    def __await__(self) -> Generator[Any, None, T]:
        yield from ()
        return self.result()


class Pipeline(Commands):
    """Collects commands; `execute` sends them in batches of 100, one round trip each.

    Plain: no transaction. If a batch is lost, those before it have taken effect, and the fault says so.
    Atomic: one MULTI/EXEC of at most 100 commands, which run without another in between.

        pipe = store.pipeline()
        name, count = pipe.get_text("name"), pipe.incr("count")
        await pipe.execute()
        print(await name, await count)
    """

    def __init__(self, transport: Transport, keys: Keyspace, values: Values, *, atomic: bool) -> None:
        self.keys, self.values = keys, values
        self._transport = transport
        self._atomic = atomic
        self._queued: list[tuple[Command[Any], Reply[Any]]] = []

    def __len__(self) -> int:
        return len(self._queued)

    def _do(self, command: Command[T]) -> Awaitable[T]:
        if self._atomic and len(self._queued) >= BATCH:
            raise ValueError(f"an atomic pipeline holds at most {BATCH} commands")
        reply = Reply(command)
        self._queued.append((command, reply))
        return reply

    async def execute(self) -> list[Any]:
        """Send what is queued, and empty the queue; the results in order.

        Raises:
            RedisUnavailableFault: a batch was lost; later ones were not sent.
            RedisFault: the first one that the server refused. The others ran; await their own replies.
        """
        queued, self._queued = self._queued, []
        name = "MULTI" if self._atomic else "PIPELINE"
        for start in range(0, len(queued), BATCH):
            batch = queued[start : start + BATCH]
            try:
                replies = await self._transport.send([c for c, _ in batch], name=name, atomic=self._atomic)
            except RedisFault as fault:
                fault.maybe_applied = fault.maybe_applied or start > 0
                raise
            for (_, reply), found in zip(batch, replies, strict=True):
                reply.arrive(found)
                if isinstance(found, RedisFault):
                    self._transport.metrics.fault(found.kind)
        return [reply.result() for _, reply in queued]
