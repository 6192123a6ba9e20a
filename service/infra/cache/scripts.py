"""The Lua scripts. Each is one step for everybody else.

Keys, below the root that `KEYS[1]`, the clock, tells:

    e:{domain}:{key}   entry, a hash: v value, t its tags with their versions, m mark, f fresh until (us)
    l:{domain}:{key}   lease: the token of who is loading
    g:{domain}:{key}   mark of the last change, for the time of the horizon
    t:{tag}            version of a tag: "<made>.<mark of its last change>"
    h:e:{domain}:{key}, h:t:{tag}   holds: tokens of who is writing, and "+" once there were two at a time
    w:{domain}, d:{domain}          write-behind: a hash of pending values, and when each is due
    clock              the last mark
    floor              the mark of the last change of any tag

An entry is valid while every one of its tags has the version written in the entry. A tag that is gone,
evicted by the server perhaps, makes its entries invalid: forgetting is always safe. What was loaded while a
tag was missing is stored only if no tag at all has changed since the load began: nothing else tells whether
that one did. To invalidate a tag takes one SET, however many entries have it. Names are made inside the
scripts, so this is for one server and its replicas and not for Redis Cluster. Marks are microseconds of the
server's clock, or one more than the last if that is more.
"""

from service.infra.redis import Script

HORIZON_SECONDS = 60.0
"""How long a change is remembered. What was read longer ago is not stored, as it may have changed."""

_COMMON = """
local horizon = @horizon
local root = string.sub(KEYS[1], 1, -6)
local function number(text) return tonumber(text or 0) or 0 end
local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000000 + tonumber(t[2])
end
local function tick()
  local last = redis.call('GET', KEYS[1])
  local mark = string.format('%.0f', math.max(now(), number(last) + 1))
  redis.call('SET', KEYS[1], mark)
  if not last then redis.call('SET', root .. 'floor', mark) end
  return mark
end
""".replace("@horizon", f"{HORIZON_SECONDS * 1000:.0f}")

MARK = Script(_COMMON + "return tick()", repeatable=True)

# domain, token, lease ms, keys... -> for each: state, value, mark, holder, corrupt
LOOK = Script(
    _COMMON
    + """
local domain, token, lease_ms = ARGV[1], ARGV[2], ARGV[3]
local function valid(tags)
  local any = false
  for name, version in string.gmatch(tags, '([^ =]+)=([^ ]+)') do
    if redis.call('GET', root .. 't:' .. name) ~= version then return false end
    any = true
  end
  return any
end
local function look(key)
  local id = domain .. ':' .. key
  local pending = redis.call('HGET', root .. 'w:' .. domain, key)
  if pending then
    return {'hit', string.sub(pending, string.find(pending, ':', 1, true) + 1), '0', '', 0}
  end
  local entry, lease, corrupt = root .. 'e:' .. id, root .. 'l:' .. id, 0
  local found = redis.pcall('HMGET', entry, 'v', 't', 'm', 'f')
  if found.err or not (found[1] and found[2] and tonumber(found[3] or '') and tonumber(found[4] or '')) then
    corrupt = redis.call('DEL', entry)
  elseif not valid(found[2]) then
    redis.call('DEL', entry)
  else
    if token ~= '' and now() >= tonumber(found[4]) then
      local taken = redis.pcall('SET', lease, token, 'NX', 'PX', lease_ms)
      if type(taken) == 'table' and taken.ok then return {'refresh', found[1], tick(), '', 0} end
    end
    return {'hit', found[1], found[3], '', 0}
  end
  if token == '' then return {'miss', '', '0', '', corrupt} end
  if redis.call('EXISTS', root .. 'h:e:' .. id) == 1 then return {'held', '', '0', '', corrupt} end
  local taken = redis.call('SET', lease, token, 'NX', 'PX', lease_ms)
  local holder = redis.call('GET', lease)
  if taken or holder == token then return {'lease', '', tick(), '', corrupt} end
  return {'busy', '', '0', holder or '', corrupt}
end
local replies = {}
for i = 4, #ARGV do replies[#replies + 1] = look(ARGV[i]) end
return replies
""",
    repeatable=True,
)

# for each value: domain, key, token, mark, store, value, ttl ms, fresh ms, number of tags, tags...
# -> for each, what became of it
#
# What stores comes first and what deletes last: a server that is out of memory refuses the first command of a
# script if it takes memory, and none after one that wrote.
KEEP = Script(
    _COMMON
    + """
local function keep(at, tags)
  local domain, key, mark = ARGV[at], ARGV[at + 1], ARGV[at + 3]
  local ttl = tonumber(ARGV[at + 6])
  local id = domain .. ':' .. key
  local entry = root .. 'e:' .. id
  if redis.call('EXISTS', root .. 'h:e:' .. id) == 1 then return 'held' end
  if redis.call('HEXISTS', root .. 'w:' .. domain, key) == 1 then return 'held' end
  if now() - tonumber(mark) > horizon * 1000 then return 'changed' end
  if number(redis.call('GET', root .. 'g:' .. id)) > tonumber(mark) then return 'changed' end
  local versions, missing = {}, false
  for i, tag in ipairs(tags) do
    if redis.call('EXISTS', root .. 'h:t:' .. tag) == 1 then return 'held' end
    local version = redis.call('GET', root .. 't:' .. tag)
    if version and number(string.match(version, '%.(%d+)$')) > tonumber(mark) then return 'changed' end
    missing = missing or not version
    versions[i] = version
  end
  if missing and tonumber(redis.call('GET', root .. 'floor') or math.huge) > tonumber(mark) then
    local changed = tick()
    for i, tag in ipairs(tags) do
      if not versions[i] then
        redis.call('SET', root .. 't:' .. tag, changed .. '.' .. changed, 'PX', horizon)
      end
    end
    redis.call('SET', root .. 'floor', changed, 'NX')
    return 'changed'
  end
  if ARGV[at + 4] ~= '1' then return 'verified' end
  local old = redis.pcall('HGET', entry, 'm')
  if type(old) == 'string' and number(old) > tonumber(mark) then return 'older' end
  local list = {}
  for i, tag in ipairs(tags) do list[i] = tag .. '=' .. (versions[i] or mark .. '.0') end
  local fresh = string.format('%.0f', now() + tonumber(ARGV[at + 7]) * 1000)
  local stored = redis.pcall(
    'HSET', entry, 'v', ARGV[at + 5], 't', table.concat(list, ' '), 'm', mark, 'f', fresh
  )
  if type(stored) == 'table' then return 'full' end
  redis.call('PEXPIRE', entry, ttl)
  for i, tag in ipairs(tags) do
    local name = root .. 't:' .. tag
    if not versions[i] then
      redis.call('SET', name, mark .. '.0', 'PX', ttl)
    elseif redis.call('PTTL', name) < ttl then
      redis.call('PEXPIRE', name, ttl)
    end
  end
  return 'kept'
end
local replies, leases, at = {}, {}, 1
while at <= #ARGV do
  local tags = {}
  for i = 1, tonumber(ARGV[at + 8]) do tags[i] = ARGV[at + 8 + i] end
  replies[#replies + 1] = keep(at, tags)
  if ARGV[at + 2] ~= '' then leases[root .. 'l:' .. ARGV[at] .. ':' .. ARGV[at + 1]] = ARGV[at + 2] end
  at = at + 9 + #tags
end
for lease, token in pairs(leases) do
  if redis.call('GET', lease) == token then redis.call('DEL', lease) end
end
return replies
""",
    repeatable=True,
)

# domain, key, mark
DISCARD = Script(
    _COMMON
    + """
local entry = root .. 'e:' .. ARGV[1] .. ':' .. ARGV[2]
if redis.call('HGET', entry, 'm') == ARGV[3] then return redis.call('DEL', entry) end
return 0
""",
    repeatable=True,
)

# -> used and largest memory in bytes
MEMORY = Script(
    """
local info = redis.call('INFO', 'memory')
return {string.match(info, 'used_memory:(%d+)'), string.match(info, 'maxmemory:(%d+)')}
""",
    repeatable=True,
)

# moment, token, hold ms, number of keys, domain and key of each..., tags... -> sole, mark
#
# What deletes comes first: a server that is out of memory lets a script that has deleted something write on.
CHANGE = Script(
    _COMMON
    + """
local moment, token, hold_ms, first_tag = ARGV[1], ARGV[2], ARGV[3], 5 + 2 * tonumber(ARGV[4])
for i = 5, first_tag - 1, 2 do
  local id = ARGV[i] .. ':' .. ARGV[i + 1]
  redis.call('DEL', root .. 'e:' .. id, root .. 'l:' .. id)
end
for i = first_tag, #ARGV do redis.call('DEL', root .. 't:' .. ARGV[i]) end
local mark, sole = tick(), 1
local function hold(name)
  local holders = root .. 'h:' .. name
  if moment == 'begin' then
    redis.call('SADD', holders, token)
    if redis.call('SCARD', holders) > 1 then redis.call('SADD', holders, '+') end
    redis.call('PEXPIRE', holders, hold_ms)
  elseif moment == 'end' then
    local overlapped = redis.call('SISMEMBER', holders, '+')
    if redis.call('SREM', holders, token) == 0 or overlapped == 1 then sole = 0 end
    if redis.call('SCARD', holders) == overlapped then redis.call('DEL', holders) end
  end
end
for i = 5, first_tag - 1, 2 do
  local id = ARGV[i] .. ':' .. ARGV[i + 1]
  redis.call('SET', root .. 'g:' .. id, mark, 'PX', horizon)
  hold('e:' .. id)
end
for i = first_tag, #ARGV do
  redis.call('SET', root .. 't:' .. ARGV[i], mark .. '.' .. mark, 'PX', horizon)
  hold('t:' .. ARGV[i])
end
if first_tag <= #ARGV then redis.call('SET', root .. 'floor', mark) end
return {sole, mark}
""",
    repeatable=True,
)

# domain, key, value, most -> the write's version, 0 if too many wait
PUT = Script(
    _COMMON
    + """
local domain, key = ARGV[1], ARGV[2]
local pending, id = root .. 'w:' .. domain, domain .. ':' .. key
local known = redis.call('HEXISTS', pending, key) == 1
if not known and redis.call('HLEN', pending) >= tonumber(ARGV[4]) then return '0' end
local mark = tick()
redis.call('HSET', pending, key, mark .. ':' .. ARGV[3])
redis.call('ZADD', root .. 'd:' .. domain, 'NX', string.format('%.0f', now() / 1000), key)
redis.call('DEL', root .. 'e:' .. id, root .. 'l:' .. id)
redis.call('SET', root .. 'g:' .. id, mark, 'PX', horizon)
return mark
""",
    repeatable=True,
)

# domain, lease ms, most -> key, version and value of each that is due; none is due again until the lease ends
CLAIM = Script(
    _COMMON
    + """
local pending, due = root .. 'w:' .. ARGV[1], root .. 'd:' .. ARGV[1]
local at, claimed = now() / 1000, {}
local keys = redis.call('ZRANGEBYSCORE', due, '-inf', string.format('%.0f', at), 'LIMIT', 0, ARGV[3])
for _, key in ipairs(keys) do
  local found = redis.call('HGET', pending, key)
  if found then
    redis.call('ZADD', due, string.format('%.0f', at + tonumber(ARGV[2])), key)
    local colon = string.find(found, ':', 1, true)
    claimed[#claimed + 1] = {key, string.sub(found, 1, colon - 1), string.sub(found, colon + 1)}
  else
    redis.call('ZREM', due, key)
  end
end
return claimed
"""
)

# domain, key, version -> 1 if nothing waits for this key any more
DONE = Script(
    _COMMON
    + """
local domain, key, version = ARGV[1], ARGV[2], ARGV[3]
local pending, due, id = root .. 'w:' .. domain, root .. 'd:' .. domain, domain .. ':' .. key
local found = redis.call('HGET', pending, key)
if not found then return 1 end
if string.sub(found, 1, #version + 1) ~= version .. ':' then
  redis.call('ZADD', due, 'XX', string.format('%.0f', now() / 1000), key)
  return 0
end
redis.call('HDEL', pending, key)
redis.call('ZREM', due, key)
redis.call('DEL', root .. 'e:' .. id, root .. 'l:' .. id)
redis.call('SET', root .. 'g:' .. id, tick(), 'PX', horizon)
return 1
""",
    repeatable=True,
)

# domain, key, pause ms
LATER = Script(
    _COMMON
    + """
local at = string.format('%.0f', now() / 1000 + tonumber(ARGV[3]))
return redis.call('ZADD', root .. 'd:' .. ARGV[1], 'XX', at, ARGV[2])
""",
    repeatable=True,
)
