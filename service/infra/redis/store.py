"""The store: what the features and the other parts of `infra` know of Redis."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from observability import Telemetry, get_logger
from service.infra.redis.client import RedisClient
from service.infra.redis.commands import Argument, Command, Commands
from service.infra.redis.faults import RedisCommandFault, RedisFault, lost
from service.infra.redis.keys import Keyspace
from service.infra.redis.pipeline import BATCH, Pipeline
from service.infra.redis.subscription import Subscription
from service.infra.redis.transport import Transport
from service.infra.redis.values import Values
from service.settings import RedisSettings
from service.tasks import end

log = get_logger(__name__)

T = TypeVar("T")

_SCAN_COUNT = 500
_PAUSES = (0.5, 5.0)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script. `repeatable`: run twice it leaves the state, and gives the answer, of having run once."""

    source: str
    repeatable: bool = False
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


class RedisStore(Commands):
    """Every command of `Commands`, at once. One per process, over its raw client.

    Keys are put below the prefix of the settings and are 1 to 512 characters; values are 10 MB at most.
    """

    def __init__(self, client: RedisClient, settings: RedisSettings, telemetry: Telemetry) -> None:
        self.raw = client
        self.keys = Keyspace(settings.key_prefix)
        self.values = Values(settings.max_value_bytes)
        self._minimum = settings.min_connections
        self._transport = Transport(client, settings, telemetry)
        self._filling: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Fill the pool to its minimum in the background, as soon as the server answers."""
        self._filling = asyncio.create_task(self._fill(), name="redis-pool")

    async def close(self) -> None:
        """Stop filling. The client is closed by whoever opened it."""
        await end(self._filling)

    async def _do(self, command: Command[T]) -> T:
        (reply,) = await self._transport.send([command], name=command.name)
        return self._result(command, reply)

    def _result(self, command: Command[T], reply: Any) -> T:
        if isinstance(reply, RedisFault):
            self._transport.metrics.fault(reply.kind)
            raise reply
        return command.parse(reply)

    async def ping(self) -> None:
        """One round trip. Raises RedisUnavailableFault."""
        await self._do(Command(("PING",), bool, repeatable=True))

    def pipeline(self, *, atomic: bool = False) -> Pipeline:
        """Collects commands and sends them in batches of 100; atomic: in one MULTI/EXEC."""
        return Pipeline(self._transport, self.keys, self.values, atomic=atomic)

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument] = ()) -> Any:
        """The script's reply. `keys` are given without the prefix.

        Raises RedisFault: see `Commands`. A script that is not repeatable is sent at most once.
        """
        rest = (len(keys), *(self.keys.full(key) for key in keys), *arguments)
        command = Command(("EVALSHA", script.sha, *rest), _same, script.repeatable)
        (reply,) = await self._transport.send([command], name=command.name)
        if isinstance(reply, RedisCommandFault) and reply.unknown_script:
            # New to this server, or the server is: it has run nothing.
            return await self._do(Command(("EVAL", script.source, *rest), _same, script.repeatable))
        return self._result(command, reply)

    async def scan(self, pattern: str = "*") -> AsyncIterator[str]:
        """The keys that match, without the prefix, in no order. One may come twice, one made meanwhile not.

        Never KEYS: the server answers others in between. `glob_escape` for what is not meant as a pattern.
        """
        async for page in self._pages(pattern):
            for key in page:
                yield self.keys.bare(key)

    async def delete_matching(self, pattern: str) -> int:
        """Delete the keys that match, 100 at a time, while others are served; how many there were.

        A fault leaves it half done: call it again.
        """
        deleted = 0
        async for page in self._pages(pattern):
            for start in range(0, len(page), BATCH):
                names = tuple(page[start : start + BATCH])
                deleted += await self._do(Command(("UNLINK", *names), int, repeatable=True))
        return deleted

    async def _pages(self, pattern: str) -> AsyncIterator[list[bytes]]:
        full = self.keys.pattern(pattern)
        cursor: bytes | int = 0
        while True:
            arguments: tuple[Argument, ...] = ("SCAN", cursor, "MATCH", full, "COUNT", _SCAN_COUNT)
            cursor, page = await self._do(Command(arguments, _page, repeatable=True))
            if page:
                yield page
            if int(cursor) == 0:
                return

    async def publish(self, channel: str, message: object) -> int:
        """How many connections took it; nobody keeps it. Sent at most once."""
        arguments = ("PUBLISH", self.keys.full(channel), self.values.encode(message))
        return await self._do(Command(arguments, int, repeatable=False))

    @asynccontextmanager
    async def subscribe(
        self, *channels: str, patterns: Sequence[str] = (), on_gap: Callable[[], None] | None = None
    ) -> AsyncIterator[Subscription]:
        """Messages of channels and patterns, over a connection of its own beside the pool.

        A connection that breaks is restored. What was published meanwhile is lost: `on_gap` is called then.
        """
        subscription = Subscription(
            self._transport,
            self.keys,
            [self.keys.full(channel) for channel in channels],
            [self.keys.pattern(pattern) for pattern in patterns],
            on_gap,
        )
        try:
            yield subscription
        finally:
            await subscription.close()

    async def _fill(self) -> None:
        pause = _PAUSES[0]
        while True:
            try:
                await self._transport.pool.fill(self._minimum)
            except Exception as error:  # noqa: BLE001 - commands report the fault; this only tries again
                log.debug(
                    "redis.pool_not_filled", reason=str(lost(error, maybe_applied=False)), retryIn=pause
                )
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSES[1])
            else:
                log.debug("redis.pool_filled", connections=self._minimum)
                return


def _same(reply: Any) -> Any:
    return reply


def _page(reply: Sequence[Any]) -> tuple[bytes, list[bytes]]:
    return reply[0], list(reply[1])
