"""The commands, once: the store sends each one, a pipeline collects them.

A command is repeatable when running it twice leaves the same state as running it once. Those are tried again
after a connection fault; what they count (keys deleted, members added) may then be what the second run saw.
The others are sent at most once: a fault with `maybe_applied` says that nobody knows.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from service.infra.redis.keys import Keyspace
from service.infra.redis.values import Values, from_json, from_text

T = TypeVar("T")
Argument = str | bytes | int | float


@dataclass(frozen=True, slots=True)
class Command(Generic[T]):
    """What is sent, how its reply is read, and whether it may be sent again."""

    arguments: tuple[Argument, ...]
    parse: Callable[[Any], T]
    repeatable: bool

    @property
    def name(self) -> str:
        return str(self.arguments[0])


def milliseconds(seconds: float) -> int:
    """A time to live. Raises ValueError under one millisecond: Redis would take it for "delete"."""
    found = round(seconds * 1000)
    if found < 1:
        raise ValueError(f"a time to live of {seconds} s")
    return found


def _same(reply: Any) -> Any:
    return reply


def _pairs(reply: Sequence[bytes]) -> dict[str, bytes]:
    return {from_text(name): value for name, value in zip(reply[::2], reply[1::2], strict=True)}


def _scores(reply: Sequence[bytes]) -> list[tuple[bytes, float]]:
    return [(member, float(score)) for member, score in zip(reply[::2], reply[1::2], strict=True)]


def _nothing(_reply: object) -> None:
    return None


def _optional(parse: Callable[[bytes], T]) -> Callable[[bytes | None], T | None]:
    return lambda reply: None if reply is None else parse(reply)


class Commands:
    """Every command by its Redis name. Keys are given without the prefix; times to live are seconds.

    Each call raises before anything is sent: RedisKeyFault, RedisValueTooLargeFault, RedisEncodeFault.
    Awaiting it raises RedisConnectionFault, RedisTimeoutFault, RedisRefusingFault, RedisWrongTypeFault,
    RedisDecodeFault or RedisCommandFault.
    """

    keys: Keyspace
    values: Values

    def _do(self, command: Command[T]) -> Awaitable[T]:
        raise TypeError("only a store or a pipeline sends commands")

    def _read(self, parse: Callable[[Any], T], name: str, key: str, *rest: Argument) -> Awaitable[T]:
        return self._do(Command((name, self.keys.full(key), *rest), parse, repeatable=True))

    def _write(self, parse: Callable[[Any], T], name: str, key: str, *rest: Argument) -> Awaitable[T]:
        """A write that leaves the same state when it runs twice."""
        return self._read(parse, name, key, *rest)

    def _once(self, parse: Callable[[Any], T], name: str, key: str, *rest: Argument) -> Awaitable[T]:
        """A write that must not run twice unknowingly."""
        return self._do(Command((name, self.keys.full(key), *rest), parse, repeatable=False))

    def _encoded(self, values: Sequence[object]) -> list[bytes]:
        if not values:
            raise ValueError("at least one value is needed")
        return [self.values.encode(value) for value in values]

    def _full(self, keys: Sequence[str]) -> list[str]:
        if not keys:
            raise ValueError("at least one key is needed")
        return [self.keys.full(key) for key in keys]

    # -- strings -----------------------------------------------------------------------------------------

    def get(self, key: str) -> Awaitable[bytes | None]:
        return self._read(_same, "GET", key)

    def get_text(self, key: str) -> Awaitable[str | None]:
        return self._read(_optional(from_text), "GET", key)

    def get_json(self, key: str) -> Awaitable[Any]:
        """None for a missing key, as for JSON's null."""
        return self._read(_optional(from_json), "GET", key)

    def mget(self, keys: Sequence[str]) -> Awaitable[list[bytes | None]]:
        return self._do(Command(("MGET", *self._full(keys)), list, repeatable=True))

    def set(self, key: str, value: object, *, ttl: float | None = None) -> Awaitable[None]:
        """Without `ttl` the key lives until it is deleted."""
        extra = () if ttl is None else ("PX", milliseconds(ttl))
        return self._write(_nothing, "SET", key, self.values.encode(value), *extra)

    def mset(self, values: Mapping[str, object]) -> Awaitable[None]:
        """All of them at once, without a time to live."""
        pairs = zip(self._full(list(values)), self._encoded(list(values.values())), strict=True)
        return self._do(
            Command(("MSET", *(part for pair in pairs for part in pair)), _nothing, repeatable=True)
        )

    def set_if_absent(self, key: str, value: object, *, ttl: float | None = None) -> Awaitable[bool]:
        """Whether it was set. Sent at most once: a second try would find the first one's key."""
        extra = () if ttl is None else ("PX", milliseconds(ttl))
        return self._once(bool, "SET", key, self.values.encode(value), "NX", *extra)

    def getdel(self, key: str) -> Awaitable[bytes | None]:
        return self._once(_same, "GETDEL", key)

    # -- counters ----------------------------------------------------------------------------------------

    def incr(self, key: str, by: int = 1) -> Awaitable[int]:
        """The new count. Sent at most once: after a fault with `maybe_applied` it may have counted or not."""
        return self._once(int, "INCRBY", key, by)

    def decr(self, key: str, by: int = 1) -> Awaitable[int]:
        return self._once(int, "DECRBY", key, by)

    def incr_float(self, key: str, by: float) -> Awaitable[float]:
        return self._once(float, "INCRBYFLOAT", key, by)

    # -- keys and expiry ---------------------------------------------------------------------------------

    def delete(self, *keys: str) -> Awaitable[int]:
        """How many there were; memory is given back in the background."""
        return self._do(Command(("UNLINK", *self._full(keys)), int, repeatable=True))

    def exists(self, *keys: str) -> Awaitable[int]:
        return self._do(Command(("EXISTS", *self._full(keys)), int, repeatable=True))

    def expire(self, key: str, ttl: float) -> Awaitable[bool]:
        """Whether the key exists."""
        return self._write(bool, "PEXPIRE", key, milliseconds(ttl))

    def persist(self, key: str) -> Awaitable[bool]:
        return self._write(bool, "PERSIST", key)

    def ttl(self, key: str) -> Awaitable[float | None]:
        """Seconds left; infinity for a key that does not expire, None for one that does not exist."""

        def parse(reply: int) -> float | None:
            return None if reply == -2 else float("inf") if reply == -1 else reply / 1000

        return self._read(parse, "PTTL", key)

    def type(self, key: str) -> Awaitable[str]:
        """string, hash, list, set, zset, stream; none for a missing key."""
        return self._read(from_text, "TYPE", key)

    # -- hashes ------------------------------------------------------------------------------------------

    def hset(self, key: str, fields: Mapping[str, object]) -> Awaitable[int]:
        """How many fields are new."""
        pairs = zip(self._encoded(list(fields)), self._encoded(list(fields.values())), strict=True)
        return self._write(int, "HSET", key, *(part for pair in pairs for part in pair))

    def hget(self, key: str, field: str) -> Awaitable[bytes | None]:
        return self._read(_same, "HGET", key, self.values.encode(field))

    def hmget(self, key: str, fields: Sequence[str]) -> Awaitable[list[bytes | None]]:
        return self._read(list, "HMGET", key, *self._encoded(fields))

    def hgetall(self, key: str) -> Awaitable[dict[str, bytes]]:
        return self._read(_pairs, "HGETALL", key)

    def hdel(self, key: str, *fields: str) -> Awaitable[int]:
        return self._write(int, "HDEL", key, *self._encoded(fields))

    def hexists(self, key: str, field: str) -> Awaitable[bool]:
        return self._read(bool, "HEXISTS", key, self.values.encode(field))

    def hlen(self, key: str) -> Awaitable[int]:
        return self._read(int, "HLEN", key)

    def hincr(self, key: str, field: str, by: int = 1) -> Awaitable[int]:
        return self._once(int, "HINCRBY", key, self.values.encode(field), by)

    # -- lists -------------------------------------------------------------------------------------------

    def lpush(self, key: str, *values: object) -> Awaitable[int]:
        """The new length."""
        return self._once(int, "LPUSH", key, *self._encoded(values))

    def rpush(self, key: str, *values: object) -> Awaitable[int]:
        return self._once(int, "RPUSH", key, *self._encoded(values))

    def lpop(self, key: str) -> Awaitable[bytes | None]:
        return self._once(_same, "LPOP", key)

    def rpop(self, key: str) -> Awaitable[bytes | None]:
        return self._once(_same, "RPOP", key)

    def lrange(self, key: str, start: int = 0, stop: int = -1) -> Awaitable[list[bytes]]:
        """Both ends are included; negative ones count from the end."""
        return self._read(list, "LRANGE", key, start, stop)

    def llen(self, key: str) -> Awaitable[int]:
        return self._read(int, "LLEN", key)

    def ltrim(self, key: str, start: int, stop: int) -> Awaitable[None]:
        # Not repeatable: what the first run kept, a second one would cut again.
        return self._once(_nothing, "LTRIM", key, start, stop)

    def lrem(self, key: str, value: object, *, count: int = 0) -> Awaitable[int]:
        return self._once(int, "LREM", key, count, self.values.encode(value))

    # -- sets --------------------------------------------------------------------------------------------

    def sadd(self, key: str, *members: object) -> Awaitable[int]:
        return self._write(int, "SADD", key, *self._encoded(members))

    def srem(self, key: str, *members: object) -> Awaitable[int]:
        return self._write(int, "SREM", key, *self._encoded(members))

    def smembers(self, key: str) -> Awaitable[frozenset[bytes]]:
        return self._read(frozenset, "SMEMBERS", key)

    def sismember(self, key: str, member: object) -> Awaitable[bool]:
        return self._read(bool, "SISMEMBER", key, self.values.encode(member))

    def scard(self, key: str) -> Awaitable[int]:
        return self._read(int, "SCARD", key)

    # -- sorted sets -------------------------------------------------------------------------------------

    def zadd(self, key: str, scores: Mapping[str, float]) -> Awaitable[int]:
        """How many members are new."""
        pairs = zip(scores.values(), self._encoded(list(scores)), strict=True)
        return self._write(int, "ZADD", key, *(part for pair in pairs for part in pair))

    def zrem(self, key: str, *members: object) -> Awaitable[int]:
        return self._write(int, "ZREM", key, *self._encoded(members))

    def zcard(self, key: str) -> Awaitable[int]:
        return self._read(int, "ZCARD", key)

    def zscore(self, key: str, member: object) -> Awaitable[float | None]:
        return self._read(_optional(float), "ZSCORE", key, self.values.encode(member))

    def zrange(self, key: str, start: int = 0, stop: int = -1) -> Awaitable[list[tuple[bytes, float]]]:
        """Members with their scores, lowest first."""
        return self._read(_scores, "ZRANGE", key, start, stop, "WITHSCORES")

    def zrange_by_score(
        self, key: str, low: float, high: float, *, limit: int = 100
    ) -> Awaitable[list[tuple[bytes, float]]]:
        extra = ("WITHSCORES", "LIMIT", 0, limit)
        return self._read(_scores, "ZRANGEBYSCORE", key, low, high, *extra)

    def zrem_by_score(self, key: str, low: float, high: float) -> Awaitable[int]:
        return self._write(int, "ZREMRANGEBYSCORE", key, low, high)
