"""Sliding windows in Redis: one script decides over all windows of a request, in one round trip.

A window is cut into 60 buckets, and a request counts until the whole of its bucket has left the window. So
there are never more than the limit in any span of its length; what is given up is at most a sixtieth of the
window, by which room comes back later than in a list of every request. In return a window takes at most 64
small fields, whatever its limit.

The library `limits` was tried first. Its sliding-window counter admitted 162 of 100 in one span, as it takes
the window before to be evenly filled; its moving window is exact, but goes by each caller's own clock, keeps
one entry per request, and needs a round trip per window and another for the headers.
"""

from collections.abc import Callable, Sequence

from redis.asyncio import Redis
from redis.exceptions import RedisError

from service.infra.rate_limit.interface import Decision, RateLimiterError, Window, WindowState

BUCKETS = 60
_MICROSECONDS = 1_000_000

# A window is a hash: `n` the count, `o` and `l` the oldest and the last bucket in use, and the buckets by
# number. A key lives until its last bucket has left the window. Where the server's clock was set back, later
# buckets are counted as the present one, so that nobody is shut out until the clock has caught up.
_SCRIPT = """
local BUCKETS = tonumber(ARGV[1])
local now = tonumber(ARGV[2])
if now < 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function name(bucket) return string.format('%.0f', bucket) end

local function read(key, length)
  local present = (now - now % length) / length
  local found = redis.call('HMGET', key, 'n', 'o', 'l')
  local w = {key = key, length = length, present = present, count = tonumber(found[1]) or 0,
             oldest = tonumber(found[2]) or present, last = tonumber(found[3])}
  if w.oldest >= present - BUCKETS and (w.last or present) <= present then return w end
  local all = redis.call('HGETALL', key)
  local count, oldest, later = 0, nil, 0
  for i = 1, #all, 2 do
    local bucket = tonumber(all[i])
    if bucket then
      if bucket < present - BUCKETS then
        redis.call('HDEL', key, all[i])
      else
        count = count + tonumber(all[i + 1])
        if bucket > present then
          redis.call('HDEL', key, all[i])
          later = later + tonumber(all[i + 1])
          bucket = present
        end
        if not oldest or bucket < oldest then oldest = bucket end
      end
    end
  end
  w.count, w.oldest = count, oldest or present
  if count == 0 then
    redis.call('DEL', key)
    w.last = nil
    return w
  end
  if later > 0 then
    redis.call('HINCRBY', key, name(present), later)
    redis.call('PEXPIRE', key, math.ceil((BUCKETS + 1) * length / 1000) + 1)
    w.last = present
  end
  redis.call('HSET', key, 'n', count, 'o', name(w.oldest), 'l', name(w.last))
  return w
end

local function leaves(w, bucket) return (bucket + 1 + BUCKETS) * w.length - now end

local windows, admitted = {}, true
for i = 1, #KEYS do
  local w = read(KEYS[i], tonumber(ARGV[2 * i + 2]))
  w.limit = tonumber(ARGV[2 * i + 1])
  if w.count >= w.limit then admitted = false end
  windows[i] = w
end

local answer = {admitted and 1 or 0}
for _, w in ipairs(windows) do
  local bucket = w.oldest
  if admitted then
    redis.call('HINCRBY', w.key, name(w.present), 1)
    w.count = w.count + 1
    redis.call('HSET', w.key, 'n', w.count, 'o', name(w.oldest), 'l', name(w.present))
    if w.last ~= w.present then
      redis.call('PEXPIRE', w.key, math.ceil((BUCKETS + 1) * w.length / 1000) + 1)
    end
  elseif w.count >= w.limit then
    -- More than one bucket may have to leave: the limit was lowered since.
    local missing = w.count - w.limit + 1
    missing = missing - (tonumber(redis.call('HGET', w.key, name(bucket))) or 0)
    while missing > 0 and bucket < w.present do
      bucket = bucket + 1
      missing = missing - (tonumber(redis.call('HGET', w.key, name(bucket))) or 0)
    end
  end
  answer[#answer + 1] = math.max(0, w.limit - w.count)
  answer[#answer + 1] = leaves(w, bucket)
end
return answer
"""


class RedisRateLimiter:
    """A `RateLimiter` on one Redis server, by the server's clock.

    Args:
        redis: the process's client; its pool is shared.
        prefix: in front of every key.
        clock: microseconds since 1970 instead of the server's clock.
    """

    def __init__(self, redis: "Redis", *, prefix: str, clock: Callable[[], int] | None = None) -> None:
        self._script = redis.register_script(_SCRIPT)
        self._prefix = prefix
        self._clock = clock

    async def hit(self, windows: Sequence[Window]) -> Decision:
        arguments = [BUCKETS, -1 if self._clock is None else self._clock()]
        for window in windows:
            arguments += [window.rate.limit, -(-window.rate.seconds * _MICROSECONDS // BUCKETS)]
        # With its length in the key, a window whose rate was changed starts anew.
        keys = [f"{self._prefix}{window.key}:{window.rate.seconds}" for window in windows]
        try:
            answer = await self._script(keys=keys, args=arguments)
        except (RedisError, OSError) as error:
            raise RateLimiterError(type(error).__name__) from error
        states = tuple(
            WindowState(window.rate, answer[2 * n + 1], answer[2 * n + 2] / _MICROSECONDS)
            for n, window in enumerate(windows)
        )
        return Decision(bool(answer[0]), states)
