"""What the `redis` engine does to its keys, each step one atomic script and one round trip.

A job's place among the waiting ones is a number: urgency * 2^48 + 2 * sequence + redelivered, so that one
sorted set keeps the urgencies apart, each in the order of arrival, and a job that is given back keeps its
place. Urgency is the index in `PRIORITIES`. A score of the sorted set by due time is milliseconds; its
fraction holds urgency and order among jobs due in the same one.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from arq.connections import ArqRedis
from arq.constants import job_key_prefix

from service.infra.queues.interface import Delivery

_BATCH_JOBS = 1000
_BATCH_BYTES = 8 << 20
_PATIENCE_SECONDS = 10.0
"""For one round trip. The client's own retries and timeouts add up to more where nobody answers at all."""

# Clocks are the server's own, so that workers need not agree on the time.
_COMMON = """
local QUEUE, READY, RUNNING, LEASES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local NEXT, SEQUENCE, WAKE = KEYS[5], KEYS[6], KEYS[7]
local JOB = ARGV[1]
local RANK = 281474976710656  -- 2^48
local NORMAL = 2

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local now = now_ms()

-- tostring() would round such numbers.
local function exact(number) return string.format('%.17g', number) end

local function make_ready(id, rank, sequence)
  redis.call('ZADD', READY, exact(rank * RANK + sequence * 2), id)
end

local function place(id, rank, due, sequence)
  if due <= now then
    make_ready(id, rank, sequence)
  else
    redis.call('ZADD', QUEUE, exact(due + (rank + 1) / 8 + (sequence % 512) / 4096), id)
  end
end

local function give_back(id, score, redelivered)
  if redelivered and score % 2 == 0 then score = score + 1 end
  redis.call('ZADD', READY, exact(score), id)
end

-- One token in the list wakes one idle worker, which wakes the next one if it leaves anything.
local function wake()
  if redis.call('LLEN', WAKE) == 0 then redis.call('RPUSH', WAKE, '') end
end
local function wake_if_ready()
  if redis.call('ZCARD', READY) > 0 then wake() end
end

-- The token and the place of a job that runs.
local function lease_of(id)
  local lease = redis.call('HGET', LEASES, id)
  if not lease then return nil, NORMAL * RANK end
  local token, score = string.match(lease, '^(%S+) (%S+)$')
  return token, tonumber(score)
end
-- What was published meanwhile has its body in place of the old one, so that any further run is its run too.
local function end_lease(id)
  redis.call('ZREM', RUNNING, id)
  redis.call('HDEL', LEASES, id)
  redis.call('HDEL', NEXT, id)
end
local function first_score(key)
  local found = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  return found[2] and math.floor(tonumber(found[2]))
end

-- Idle workers wait until the first due time that they knew.
local first_due = first_score(QUEUE)
local function wake_if_something_changed()
  local due = first_score(QUEUE)
  if due and (not first_due or due < first_due) then wake() end
  wake_if_ready()
end
"""

# ARGV: id, urgency, delay, body of each job. One that is queued stays as it is; one that runs is queued again
# at its end. A body that nothing points to is what somebody's hand left over.
_PUBLISH = """
local sequence = redis.call('INCRBY', SEQUENCE, (#ARGV - 1) / 4) - (#ARGV - 1) / 4
for at = 2, #ARGV, 4 do
  local id, rank, due = ARGV[at], tonumber(ARGV[at + 1]), now + tonumber(ARGV[at + 2])
  sequence = sequence + 1
  local new = redis.call('SET', JOB .. id, ARGV[at + 3], 'NX')
  if not new and redis.call('HEXISTS', LEASES, id) == 1 then
    redis.call('SET', JOB .. id, ARGV[at + 3])
    redis.call('HSET', NEXT, id, rank .. ' ' .. exact(due))
  elseif new or not (redis.call('ZSCORE', READY, id) or redis.call('ZSCORE', QUEUE, id)) then
    redis.call('SET', JOB .. id, ARGV[at + 3])
    place(id, rank, due, sequence)
  end
end
wake_if_something_changed()
"""

# ARGV: how many, lease, token, bytes. Answers the milliseconds until the next known thing falls due, then id,
# body and whether it is redelivered of each job.
_TAKE = """
local limit, lease, token, budget = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5])
-- Also the first write, which needs no memory: a script that has begun may go on when the server is full.
redis.call('DEL', WAKE)
for _, id in ipairs(redis.call('ZRANGEBYSCORE', RUNNING, '-inf', now, 'LIMIT', 0, 1000)) do
  local _, score = lease_of(id)
  end_lease(id)
  give_back(id, score, true)
end
local due = redis.call('ZRANGEBYSCORE', QUEUE, '-inf', '(' .. (now + 1), 'WITHSCORES', 'LIMIT', 0, 1000)
if #due > 0 then
  local sequence = redis.call('INCRBY', SEQUENCE, #due / 2) - #due / 2
  for at = 1, #due, 2 do
    sequence = sequence + 1
    local rank = math.floor(tonumber(due[at + 1]) % 1 * 8) - 1
    if rank < 0 then rank = NORMAL end  -- put here by arq's own enqueue_job, which knows no urgency
    redis.call('ZREM', QUEUE, due[at])
    make_ready(due[at], rank, sequence)
  end
end
local reply, taken, bytes = {0}, 0, 0
local found = redis.call('ZRANGE', READY, 0, limit - 1, 'WITHSCORES')
for at = 1, #found, 2 do
  local id, score = found[at], found[at + 1]
  local body = redis.pcall('GET', JOB .. id)
  if type(body) ~= 'string' then body = '' end
  if taken > 0 and bytes + #body > budget then break end
  taken, bytes = taken + 1, bytes + #body
  redis.call('ZADD', RUNNING, now + lease, id)
  redis.call('HSET', LEASES, id, token .. ' ' .. score)
  reply[#reply + 1] = id
  reply[#reply + 1] = body
  reply[#reply + 1] = tonumber(score) % 2
end
if taken > 0 then redis.call('ZREMRANGEBYRANK', READY, 0, taken - 1) end
wake_if_ready()
local next_due, next_end = first_score(QUEUE), first_score(RUNNING)
reply[1] = math.min(next_due or math.huge, next_end or math.huge) - now
if reply[1] == math.huge then reply[1] = -1 else reply[1] = math.max(0, reply[1]) end
return reply
"""

# ARGV: verdict, id, token, delay, body of each job. A verdict on a job whose lease another worker has by now,
# or on one that was settled before, changes nothing.
_SETTLE = """
for at = 2, #ARGV, 5 do
  local verdict, id = ARGV[at], ARGV[at + 1]
  local token, score = lease_of(id)
  if token == ARGV[at + 2] then
    local next = redis.call('HGET', NEXT, id)
    end_lease(id)
    if verdict == 'done' then
      if next then
        local rank, due = string.match(next, '^(%S+) (%S+)$')
        place(id, tonumber(rank), tonumber(due), redis.call('INCR', SEQUENCE))
      else
        redis.call('UNLINK', JOB .. id)
      end
    elseif verdict == 'again' then
      redis.call('SET', JOB .. id, ARGV[at + 4])
      place(id, math.floor(score / RANK), now + tonumber(ARGV[at + 3]), redis.call('INCR', SEQUENCE))
    else
      give_back(id, score, verdict == 'interrupted')
    end
  end
end
wake_if_something_changed()
"""

# ARGV: lease, then id and token of each job. Answers the positions of those that are not ours any more.
_RENEW = """
local lost = {}
for at = 3, #ARGV, 2 do
  if lease_of(ARGV[at]) == ARGV[at + 1] then
    redis.call('ZADD', RUNNING, 'XX', now + tonumber(ARGV[2]), ARGV[at])
  else
    lost[#lost + 1] = (at - 3) / 2
  end
end
return lost
"""

_STATS = """
local due = redis.call('ZCOUNT', QUEUE, '-inf', '(' .. (now + 1))
local waiting = redis.call('ZCARD', READY) + redis.call('ZCARD', RUNNING) + due
return {waiting, redis.call('ZCARD', QUEUE) - due}
"""

Outcome = Literal["done", "again", "interrupted", "unstarted"]


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run a job: without its token no verdict on the job counts."""

    id: bytes
    token: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a job that was taken. `delay` (seconds) and `body` belong to `again`."""

    lease: Lease
    outcome: Outcome
    delay: float = 0.0
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Taken:
    """Jobs under lease, and the seconds until something falls due that nobody will announce."""

    jobs: Sequence[tuple[Lease, Delivery]]
    idle_for: float | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A job to be published: `rank` 0 is the most urgent, `delay` counts seconds from now."""

    id: str
    rank: int
    delay: float
    body: bytes


class QueueScripts:
    """The scripts on the keys of one queue. Raises what redis-py raises."""

    def __init__(self, redis: ArqRedis, *, name: str, lease: float) -> None:
        self._redis = redis
        self.wake_key = f"{name}:wake"
        self._lease = _ms(lease)
        parts = ("ready", "running", "leases", "next", "sequence")
        self._keys = [name, *(f"{name}:{part}" for part in parts), self.wake_key]
        self._publish, self._take, self._settle, self._renew, self._stats = (
            redis.register_script(_COMMON + source) for source in (_PUBLISH, _TAKE, _SETTLE, _RENEW, _STATS)
        )

    async def publish(self, entries: Sequence[Entry]) -> None:
        """In one round trip, or one for each thousand jobs or eight megabytes."""
        for batch in _batches(entries):
            arguments: list[Any] = []
            for one in batch:
                arguments += (one.id, one.rank, _ms(one.delay), one.body)
            await self._call(self._publish, arguments)

    async def take(self, limit: int, token: str) -> Taken:
        """At most so many jobs, the urgent first; fewer if they are large."""
        wait, *found = await self._call(self._take, [limit, self._lease, token, _BATCH_BYTES])
        jobs = []
        for at in range(0, len(found), 3):
            delivery = Delivery(found[at].decode(errors="replace"), found[at + 1], bool(found[at + 2]))
            jobs.append((Lease(found[at], token), delivery))
        return Taken(jobs, wait / 1000 if wait >= 0 else None)

    async def settle(self, verdicts: Sequence[Verdict]) -> None:
        """Idempotent. Without verdicts it only wakes a worker if there is something to do."""
        for batch in _batches(verdicts) or [[]]:
            arguments: list[Any] = []
            for one in batch:
                arguments += (one.outcome, one.lease.id, one.lease.token, _ms(one.delay), one.body)
            await self._call(self._settle, arguments)

    async def renew(self, leases: Sequence[Lease]) -> list[Lease]:
        """Those of them that were lost."""
        arguments: list[Any] = [self._lease]
        for one in leases:
            arguments += (one.id, one.token)
        return [leases[position] for position in await self._call(self._renew, arguments)]

    async def stats(self) -> tuple[int, int]:
        waiting, delayed = await self._call(self._stats, [])
        return waiting, delayed

    async def ping(self) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await self._redis.ping()

    async def _call(self, script: Any, arguments: Sequence[Any]) -> Any:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await script(keys=self._keys, args=[job_key_prefix, *arguments])


T = TypeVar("T", Entry, Verdict)


def _batches(items: Sequence[T]) -> list[list[T]]:
    """The items in their order, so that one script neither holds up the server nor is too large for it."""
    batches: list[list[T]] = []
    size = 0
    for item in items:
        size += len(item.body)
        if not batches or len(batches[-1]) >= _BATCH_JOBS or size > _BATCH_BYTES:
            batches.append([])
            size = len(item.body)
        batches[-1].append(item)
    return batches


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
