"""The three atomic steps of a lock. The key holds its owner's token and expires by itself."""

from service.infra.redis import Script

# KEYS: the lock, the fencing counter. ARGV: token, time to live in ms. Answers {fence} or {} when it is held.
# Repeatable: a second run finds its own token and only issues a higher fence.
#
# One counter serves all locks: it grows from lock to lock, so it grows for each of them, and a lock by ID
# needs no counter that outlives it. It is never behind the server's clock in microseconds, so that it goes on
# growing when Redis has lost its data or fails over to a replica that had not seen the latest.
ACQUIRE = Script(
    """
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] then return {} end
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local fence = math.max((tonumber(redis.call('GET', KEYS[2])) or 0) + 1, now)
local text = string.format('%.0f', fence)
redis.call('SET', KEYS[2], text)
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {text}
""",
    repeatable=True,
)

# KEYS: the lock. ARGV: token, time to live in ms. Answers 1, or 0 when it is not ours any more.
RENEW = Script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""",
    repeatable=True,
)

# KEYS: the lock. ARGV: token. Answers 1, or 0 when it was not ours any more. Not repeatable: the second run
# would answer 0 for a lock that the first one released.
RELEASE = Script(
    """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
"""
)
