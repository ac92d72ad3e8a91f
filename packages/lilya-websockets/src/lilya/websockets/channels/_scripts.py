"""What a Redis server does in one step for a channel: the Lua scripts, and nothing of how they are sent.

Each channel has a stream of events and a hash, its state: the epoch, the time and the number of the newest
event, and for each publisher the number of its last publish. A channel that nobody has published to has
neither. An event is appended, counted and pushed by one script, so the numbers of a channel have no holes.

Milliseconds stay text: to write a number of this size as text costs more than most commands.
"""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["SCRIPTS", "SHARDED", "Script"]

_COMMON: Final = """
local function text(number) return string.format('%.0f', number) end

local function clock()
  local time = redis.call('TIME')
  return time[1] .. string.sub('00000' .. time[2], -6, -4)
end

-- Where a channel stands, or nil.
local function known(state, field)
  local found = redis.call('HMGET', state, 'epoch', 'ms', 'seq', field)
  local seq = tonumber(found[3] or '')
  if found[1] and seq and tonumber(found[2] or '') then
    return {epoch = found[1], ms = found[2], seq = seq, field = found[4]}
  end
end

-- The same, to append to. If nothing is known, the channel begins, and what is left in it is another life's.
local function standing(events, state, epoch, field)
  local stands = known(state, field)
  if stands then return stands end
  redis.call('XLEN', events)  -- fails on what is no stream, and is not ours to delete
  redis.call('HSET', state, 'epoch', epoch, 'ms', '0', 'seq', '0')  -- fails if there is no memory
  redis.call('DEL', events)
  return {epoch = epoch, ms = '0', seq = 0, field = false}
end

local function append(events, state, stands, epoch, push, header, data, kept, publisher, number)
  local before, ms = stands.ms, clock()
  -- Once in a second is often enough. By the clock: what is ahead of it must be tidied, too.
  stands.untidy = stands.untidy or string.sub(before, 1, -4) ~= string.sub(ms, 1, -4)
  if #ms < #before or (#ms == #before and ms < before) then ms = before end
  stands.seq = stands.seq + 1
  local seq = text(stands.seq)
  local added = redis.pcall('XADD', events, 'MAXLEN', '~', kept, ms .. '-' .. seq,
    'h', stands.epoch .. header, 'd', data)
  if type(added) == 'table' then
    if string.find(added.err, 'smaller', 1, true) then
      -- Somebody has put an entry there that claims to be of the future.
      redis.call('DEL', events)
      before, ms, seq = '0', clock(), '1'
      stands.epoch, stands.seq = epoch, 1
      redis.call('HSET', state, 'epoch', epoch)
    end
    redis.call('XADD', events, ms .. '-' .. seq, 'h', stands.epoch .. header, 'd', data)
  end
  if publisher then
    redis.call('HSET', state, 'ms', ms, 'seq', seq, publisher, number .. ' ' .. ms)
  else
    redis.call('HSET', state, 'ms', ms, 'seq', seq)
  end
  stands.ms = ms
  local id = ms .. '-' .. seq .. '-' .. stands.epoch
  -- A refused push must not undo what is kept.
  local pushed = redis.pcall('PUBLISH', events .. push, id .. ' ' .. string.sub(header, 1, 1) .. data)
  if type(pushed) == 'table' then stands.refused = pushed.err end
  return id
end

-- Events go when they are too old. What the channel has counted to is kept for longer.
local function tidy(events, state, stands, age, expire)
  -- What a publisher has asked for, if that is longer.
  local own = redis.call('HMGET', state, 'age')[1]
  if own and age ~= '0' and tonumber(own) > tonumber(age) then
    age, expire = own, math.max(expire, own + 60000)
  end
  local until_gone = expire + 1000
  if age ~= '0' then
    redis.call('XTRIM', events, 'MINID', '~', text(math.max(stands.ms - age, 0)))
    until_gone = math.min(until_gone, age + 61000)
  end
  redis.call('PEXPIRE', events, text(until_gone))
  redis.call('PEXPIRE', state, text(expire + 1000))
end

-- So many entries at most, and not many more than 256 kB; and whether there are no more.
local function page(command, events, from, to, count)
  local all, size = {}, 0
  while #all < count and size < 262144 do
    local asked = math.min(16, count - #all)
    local found = redis.call(command, events, from, to, 'COUNT', text(asked))
    for _, entry in ipairs(found) do
      all[#all + 1] = entry
      size = size + #(entry[2][4] or '')
    end
    if #found < asked then return all, 1 end
    from = '(' .. found[#found][1]
  end
  return all, 0
end
"""

# Keeps an event that is not kept yet, and pushes it.
_KEEP: Final = """
local stands = standing(events, state, epoch, publisher)
last = stands.field and tonumber(string.match(stands.field, '^%d+'))
if last and tonumber(number) <= last then
  -- It is kept, and the answer was lost.
  local token, stop = publisher .. ':' .. number, '+'
  repeat
    found = redis.call('XREVRANGE', events, stop, '-', 'COUNT', 100)
    for _, entry in ipairs(found) do
      if string.sub(entry[2][2] or '', 10) == token then
        return entry[1] .. '-' .. string.sub(entry[2][2], 1, 8)
      end
      stop = '(' .. entry[1]
    end
  until #found < 100
  -- It is trimmed, too: a position before everything that is kept means the same.
  local first = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1]
  if not first then return stands.ms .. '-' .. text(stands.seq) .. '-' .. stands.epoch end
  local ms, seq = string.match(first[1], '^(%d+)-(%d+)$')
  return ms .. '-' .. text(math.max(seq - 1, 0)) .. '-' .. stands.epoch
end
local id = append(events, state, stands, epoch, push, header .. publisher .. ':' .. number, data, kept,
  publisher, number)
if not last and redis.call('HLEN', state) > 64 then
  -- Publishers that have not been heard of for an hour send nothing again. A part of them is looked at each
  -- time, so that no publisher pays for all.
  local part = redis.call('HSCAN', state, redis.call('HGET', state, 'swept') or '0', 'COUNT', '32')
  for i = 1, #part[2], 2 do
    local heard = string.match(part[2][i + 1], '^%d+ (%d+)$')
    if heard and heard + 3600000 < tonumber(stands.ms) then redis.call('HDEL', state, part[2][i]) end
  end
  if part[1] == '0' then
    redis.call('HDEL', state, 'swept')
  else
    redis.call('HSET', state, 'swept', part[1])
  end
end
if stands.untidy then tidy(events, state, stands, age, expire) end
if stands.refused then return {id, stands.refused} end
return id
"""

# The short way comes first. It is for a channel that knows the publisher, and for a new channel: for nearly
# every publish. It does what the long way behind it does, with half as many commands. Everything else goes
# the long way, and that is decided before anything is written. A test compares what the two ways leave.
#
# * A channel is new if it has neither a state nor entries. XADD is the first write: if the server has no
#   memory left, it refuses that, and nothing has changed.
# * Once in a second, old events are trimmed and the keys' times to live are set, as in `tidy`. A channel with
#   an age of its own goes the long way.
_PUBLISH: Final = (
    """
local events, state = KEYS[1], KEYS[2]
local epoch, push, kept, age, expire, header, data, publisher, number = unpack(ARGV)
local call = redis.call
local found, time = call('HMGET', state, 'epoch', 'ms', 'seq', publisher, 'age'), call('TIME')
local life, before, seq = found[1], found[2], tonumber(found[3] or '')
local last = tonumber(found[4] and string.match(found[4], '^%d+') or '')
local fresh = before and string.sub(before, 1, -4) == time[1]
local begins = not (life or before or found[3]) and call('XLEN', events) == 0
if begins then life, before, seq = epoch, '0', 0 end
if (begins or life and before and seq and last and last < tonumber(number))
  and (fresh or not found[5]) then
  local ms = time[1] .. string.sub('00000' .. time[2], -6, -4)
  if #ms < #before or #ms == #before and ms < before then ms = before end
  seq = string.format('%.0f', seq + 1)
  local id = ms .. '-' .. seq
  local added = redis.pcall('XADD', events, 'MAXLEN', '~', kept, id,
    'h', life .. header .. publisher .. ':' .. number, 'd', data)
  if type(added) == 'string' then
    if begins then
      call('HSET', state, 'epoch', life, 'ms', ms, 'seq', seq, publisher, number .. ' ' .. ms)
    else
      call('HSET', state, 'ms', ms, 'seq', seq, publisher, number .. ' ' .. ms)
    end
    if not fresh then
      local until_gone = expire + 1000
      call('PEXPIRE', state, string.format('%.0f', until_gone))
      if age ~= '0' then
        local oldest = string.format('%.0f', math.max(ms - age, 0))
        if not begins then call('XTRIM', events, 'MINID', '~', oldest) end
        until_gone = math.min(until_gone, age + 61000)
      end
      call('PEXPIRE', events, string.format('%.0f', until_gone))
    end
    id = id .. '-' .. life
    local pushed = redis.pcall('PUBLISH', events .. push, id .. ' ' .. header .. data)
    if type(pushed) == 'table' then return {id, pushed.err} end
    return id
  end
end
"""
    + _COMMON
    + _KEEP
)

# With an idempotency key, or with an age of its own.
_WISHED: Final = (
    """
local events, state, once = unpack(KEYS)
local epoch, push, kept, age, expire, header, data, publisher, own, number = unpack(ARGV)
if once then
  local known = redis.call('GET', once)
  if known then return known end
end
if own ~= '' then
  redis.call('XLEN', events)  -- fails on what is no stream: nothing is left beside it
  redis.call('HSET', state, 'age', own)
end
local found, last
"""
    + _COMMON
    + "local function publish()\n"
    + _KEEP
    + """
end
local answer = publish()
local id = type(answer) == 'table' and answer[1] or answer
if once then redis.call('SET', once, id, 'PX', 300000) end
if own ~= '' then tidy(events, state, {ms = string.match(id, '^%d+')}, age, expire) end
return answer
"""
)

# The newest entries, from the newest back. `before` is where the page before has ended.
_HISTORY: Final = (
    _COMMON
    + """
local events, state = KEYS[1], KEYS[2]
local age, expire, most, since_epoch, since_seq, before = unpack(ARGV)
local stands = known(state, 'epoch')
if not stands then
  redis.call('XLEN', events)
  return {clock()}
end
tidy(events, state, stands, age, expire)
most = tonumber(most)
if since_epoch == stands.epoch and tonumber(since_seq) <= stands.seq then
  -- One more than those after it: the event itself, which shows whether it is the one that is meant.
  most = math.min(most, stands.seq - since_seq + 1)
end
local found, ended = page('XREVRANGE', events, before, '-', most)
return {clock(), stands.epoch, stands.ms, text(stands.seq), found, ended}
"""
)

# What comes after a position, with what shows whether it is one of this life and of this branch of it.
_READ: Final = (
    _COMMON
    + """
local events, state = KEYS[1], KEYS[2]
local epoch, ms, seq, count = unpack(ARGV)
local stands = known(state, 'epoch')
if not stands then
  redis.call('XLEN', events)
  return {clock()}
end
local first = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1]
local at, before, from = ms .. '-' .. seq, nil, '-'
if epoch == stands.epoch then
  from = '(' .. at
  before = redis.call('XREVRANGE', events, at, '-', 'COUNT', 1)[1]
end
local found, ended = page('XRANGE', events, from, '+', tonumber(count))
return {clock(), stands.epoch, stands.ms, text(stands.seq), found, ended,
  first and first[1] or '', before and before[1] or ''}
"""
)

# Where each of some channels stands, by their states. What is read does not expire.
_STANDINGS: Final = """
local age, expire = unpack(ARGV)
local all = {}
for i, state in ipairs(KEYS) do
  local found = redis.pcall('HMGET', state, 'ms', 'seq', 'epoch', 'age')
  if found[1] and found[2] and found[3] then
    redis.call('PEXPIRE', state, found[4] and math.max(expire, found[4] + 60000) or expire)
    if age == '0' then redis.call('PEXPIRE', string.sub(state, 1, -7), expire) end
    all[i] = found[1] .. '-' .. found[2] .. '-' .. found[3]
  else
    all[i] = ''
  end
end
return all
"""

# Which memory this is: another one after the broker has lost everything.
_MEMORY: Final = """
redis.call('SETNX', KEYS[1], ARGV[1])
return redis.call('GET', KEYS[1])
"""

# What an operator wants to know of a channel, by all of its keys in one slot. What this user may not ask, or
# what is of another type, is told as nothing: the rest is of use all the same.
_STATUS: Final = (
    _COMMON
    + """
local function ask(...)
  local found = redis.pcall(...)
  return (type(found) ~= 'table' or not found.err) and found
end

local bytes = 0
for _, key in ipairs(KEYS) do
  local used = redis.pcall('MEMORY', 'USAGE', key, 'SAMPLES', '5')
  if type(used) == 'table' then
    bytes = false
    break
  end
  bytes = bytes + (used or 0)
end
local now, deadlines = clock(), KEYS[4]
local listeners = ask('PUBSUB', 'NUMSUB', KEYS[1] .. ARGV[1])
return {now, ask('XLEN', KEYS[1]), ask('HMGET', KEYS[2], 'ms', 'seq', 'epoch'), bytes,
  listeners and listeners[2], deadlines ~= nil and ask('ZCOUNT', deadlines, '(' .. now, '+inf')}
"""
)

_PRESENCE: Final = (
    _COMMON
    + """
local events, state, members, deadlines, keys = unpack(KEYS)
-- Not all of them: Lua has room for some 8,000 values, and there are four for each member.
local epoch, push, kept, age, expire, action, ttl = unpack(ARGV, 1, 7)
local stands = nil
local now = clock()

local function tell(data)
  stands = stands or standing(events, state, epoch, 'epoch')
  return append(events, state, stands, epoch, push, 's', data, kept)
end

-- How many there are with a key, after one has come or gone. The empty key has the sum of all.
local function counted(key, more)
  if key == '' then return more > 0 and 1 or 0 end
  redis.call('HINCRBY', keys, '', more)
  local sockets = redis.call('HINCRBY', keys, key, more)
  if sockets < 1 then redis.call('HDEL', keys, key) end
  return math.max(sockets, 0)
end

local function leave(id)
  if redis.call('ZREM', deadlines, id) == 1 then
    local member = redis.call('HGET', members, id)
    redis.call('HDEL', members, id)
    local key, left = string.match(member or '', '^%S+ ([^{%s]*) (.*)$')
    if key then
      tell(left .. text(counted(key, -1)) .. '}')
    elseif member and string.find(member, '^%S+ {') then
      tell(string.match(member, ' (.*)$'))  -- from before there were keys: all of its leave
    end
  end
end

-- A part of those whose time is over, because nobody else is served meanwhile. Whoever asks comes again.
local over = redis.call('ZRANGEBYSCORE', deadlines, '-inf', now, 'LIMIT', 0, 500)
for _, id in ipairs(over) do leave(id) end
if action == 'appear' then
  -- With nobody there, nobody has a key, even if a process from before there were keys has removed the last.
  -- Not more often than it must be: after a first write, a Redis without memory refuses no other one.
  if redis.call('ZCARD', deadlines) == 0 and redis.call('EXISTS', keys) == 1 then redis.call('DEL', keys) end
  for i = 8, #ARGV, 4 do
    local id, joins, leaves, key = unpack(ARGV, i, i + 3)
    if not redis.call('ZSCORE', deadlines, id) then
      local joined = tell(joins .. text(counted(key, 1)) .. '}')
      redis.call('HSET', members, id, joined .. ' ' .. key .. ' ' .. leaves)
    end
    redis.call('ZADD', deadlines, text(now + ttl), id)
  end
  redis.call('PEXPIRE', members, text(expire + ttl))
  redis.call('PEXPIRE', keys, text(expire + ttl))
  redis.call('PEXPIRE', deadlines, text(expire + ttl))
elseif action == 'vanish' then
  for i = 8, #ARGV do leave(ARGV[i]) end
end
if stands and stands.untidy then tidy(events, state, stands, age, expire) end
local found = {}
if action == 'members' then
  found = redis.call('HGETALL', members)
elseif action == 'count' then
  found = redis.call('ZCARD', deadlines)
elseif action == 'count keys' then
  local keyed = tonumber(redis.call('HMGET', keys, '')[1] or '0')
  found = redis.call('ZCARD', deadlines) - keyed + math.max(redis.call('HLEN', keys) - 1, 0)
end
return {#over, found}
"""
)


class Script:
    """A script, and what the server calls it once it has been told."""

    def __init__(self, source: str) -> None:
        self.source = source.encode()
        self.sha = hashlib.sha1(self.source, usedforsecurity=False).hexdigest().encode()


SCRIPTS: Final = {
    name: Script(source)
    for name, source in (
        ("publish", _PUBLISH),
        ("wished", _WISHED),
        ("history", _HISTORY),
        ("read", _READ),
        ("standings", _STANDINGS),
        ("memory", _MEMORY),
        ("status", _STATUS),
        ("presence", _PRESENCE),
    )
}

# In a cluster an event is pushed to who listens at the same node, and not to all nodes.
SHARDED: Final = {
    name: Script(
        script.source.decode().replace("'PUBLISH'", "'SPUBLISH'").replace("'NUMSUB'", "'SHARDNUMSUB'")
    )
    for name, script in SCRIPTS.items()
}
