"""The Lua scripts that run on the Redis server. How they are sent is not part of this file.

Each channel has a stream with its events, and a hash with its state: the epoch, the time and the number of
the newest event, and for each publisher the number of its last publish. A channel that nobody has published
to has neither. One script numbers an event, appends it and pushes it. Redis runs a script without
interruption, so the numbers of a channel have no holes.

Redis does not roll a script back when a command in it fails. So the scripts that publish make the checks that
can fail before their first write. That includes memory: a server without free memory refuses the first write
of a script, and no later one.

Milliseconds stay text, because formatting a number of this size costs more than most commands.
"""

from __future__ import annotations

import hashlib
from typing import Final

__all__ = ["SCRIPTS", "SHARDED", "Script"]

# Readers postpone the expiry of what they read, and that is a write. The server may refuse all writes: with
# `min-replicas-to-write` if a replica is missing, or if its disk fails. What is stored can be read then, too.
# Any other error is raised.
_OPTIONAL: Final = """
local function refuses(why)
  return string.find(why, 'NOREPLICAS', 1, true) or string.find(why, 'MISCONF', 1, true)
end
local function optionally(write, ...)
  local done, why = pcall(write, ...)
  if not done and not refuses(type(why) == 'table' and why.err or why) then error(why) end
end
"""

# The functions that the other scripts begin with.
_COMMON: Final = """
-- `tostring` would write 1764106141000 as 1.764106141e+12.
local function text(number) return string.format('%.0f', number) end

-- The server's time in milliseconds, as text: the seconds, then the first three of six digits of the rest.
local function clock()
  local time = redis.call('TIME')
  return time[1] .. string.sub('00000' .. time[2], -6, -4)
end

-- The state of a channel, and one more field of it. nil if the channel has no complete state.
local function known(state, field)
  local found = redis.call('HMGET', state, 'epoch', 'ms', 'seq', field)
  local seq = tonumber(found[3] or '')
  if found[1] and seq and tonumber(found[2] or '') then
    return {epoch = found[1], ms = found[2], seq = seq, field = found[4]}
  end
end

-- The state of a channel that is about to get an event. Without a state, the channel starts a new epoch.
-- The stream may have outlived the state, for example because Redis evicted only the hash. Its entries have
-- the numbers of an earlier epoch, and the new epoch starts at 1 again, so they are deleted.
local function standing(events, state, epoch, field)
  local stands = known(state, field)
  if stands then return stands end
  redis.call('XLEN', events)  -- fails if the key is not a stream: then it is not ours to delete
  redis.call('HSET', state, 'epoch', epoch, 'ms', '0', 'seq', '0')  -- fails if there is no memory left
  redis.call('DEL', events)
  return {epoch = epoch, ms = '0', seq = 0, field = false}
end

-- Number an event, append it to the stream, and push it. Returns its id.
local function append(events, state, stands, epoch, push, header, data, kept, publisher, number)
  local before, ms = stands.ms, clock()
  -- Tidy with the first event of each second. This compares with the clock itself, before `ms` is raised
  -- below. Otherwise a channel whose newest event is ahead of the clock would not be tidied until the clock
  -- has caught up.
  stands.untidy = stands.untidy or string.sub(before, 1, -4) ~= string.sub(ms, 1, -4)
  -- If the clock is behind the newest event (after a failover, or set back), use that event's time again. The
  -- ids of a stream must rise. Two numbers as text: the longer one is larger.
  local server
  if #ms < #before or (#ms == #before and ms < before) then
    ms = before
    -- The primary that failed may have stored events at this same time, which this server does not have. With
    -- the same number, too, a new event would look like the lost one, and nobody would notice the loss. So
    -- each server goes ahead once, by up to a second, at random: `epoch` is random in each call.
    local info = redis.pcall('INFO', 'server')  -- the user may not be allowed to
    server = type(info) == 'string' and string.match(info, 'run_id:(%x+)')
    if server and redis.call('HMGET', state, 'ahead')[1] ~= server then
      ms = text(ms + 1 + (tonumber(epoch, 16) or 0) % 1000)
    else
      server = nil
    end
  end
  stands.seq = stands.seq + 1
  local seq = text(stands.seq)
  local added = redis.pcall('XADD', events, 'MAXLEN', '~', kept, ms .. '-' .. seq,
    'h', stands.epoch .. header, 'd', data)
  if type(added) == 'table' then
    if string.find(added.err, 'smaller', 1, true) then
      -- Another program has added an entry with a higher id, so no id of ours would be accepted any more.
      -- Start a new epoch without the old entries: readers see that the epoch has changed, and get a gap.
      redis.call('DEL', events)
      before, ms, seq = '0', clock(), '1'
      stands.epoch, stands.seq = epoch, 1
      redis.call('HSET', state, 'epoch', epoch)
    end
    -- After any other error (no memory, not a stream), this fails in the same way, and raises the error.
    redis.call('XADD', events, ms .. '-' .. seq, 'h', stands.epoch .. header, 'd', data)
  end
  if publisher then
    redis.call('HSET', state, 'ms', ms, 'seq', seq, publisher, number .. ' ' .. ms)
  else
    redis.call('HSET', state, 'ms', ms, 'seq', seq)
  end
  if server then redis.call('HSET', state, 'ahead', server) end
  stands.ms = ms
  local id = ms .. '-' .. seq .. '-' .. stands.epoch
  -- The event is stored already. If the user may not push, the publish has succeeded all the same: an error
  -- here would make the publisher believe that the event was not stored.
  local pushed = redis.pcall('PUBLISH', events .. push, id .. ' ' .. string.sub(header, 1, 1) .. data)
  if type(pushed) == 'table' then stands.refused = pushed.err end
  return id
end

-- Trim events that are too old, and set when the keys expire. The state outlives the events, because it has
-- the epoch and the last number. With these, the next event continues the numbers, and a reader that returns
-- late learns whether it has missed any events. Without them, it would get a gap in any case.
local function tidy(events, state, stands, age, expire)
  -- A longer `max_age` that a publisher has asked for counts until the events with it have expired.
  local own = redis.call('HMGET', state, 'age', 'until')
  if own[1] and (not own[2] or tonumber(own[2]) >= tonumber(stands.ms)) then
    if age ~= '0' then age = text(math.max(age, own[1])) end
    expire = math.max(expire, own[1] + 60000)
  end
  -- One second more, because events tidy only once a second: the newest event may be that much younger.
  local until_gone = expire + 1000
  if age ~= '0' then
    redis.call('XTRIM', events, 'MINID', '~', text(math.max(stands.ms - age, 0)))
    until_gone = math.min(until_gone, age + 61000)
  end
  redis.call('PEXPIRE', events, text(until_gone))
  redis.call('PEXPIRE', state, text(expire + 1000))
end

-- At most `count` entries, and not much more than 256 kB of them; and 1 if there are no more, else 0. The
-- server answers nobody else while a script runs, so no answer may become large. The size of an entry is only
-- known after it was read: hence 16 at a time.
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

# Stores an event unless it is stored already, and pushes it.
#
# A publisher that gets no answer sends the same publish again, with the same number. The state has the number
# of each publisher's last publish. A number that is not higher means that the publish was stored before. This
# works only if the numbers of a publisher arrive in rising order, which `_link` ensures.
_KEEP: Final = """
local stands = standing(events, state, epoch, publisher)
last = stands.field and tonumber(string.match(stands.field, '^%d+'))
if last and tonumber(number) <= last then
  -- The event is stored, but its answer was lost. Find its id by the token in its header, after 8 digits of
  -- the epoch and a letter. It is most likely one of the newest entries.
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
  -- The entry was trimmed, so its id is not known any more. As a position to read from, it would give all
  -- entries that are left. So the position before the first of them is as good.
  local first = redis.call('XRANGE', events, '-', '+', 'COUNT', 1)[1]
  if not first then return stands.ms .. '-' .. text(stands.seq) .. '-' .. stands.epoch end
  local ms, seq = string.match(first[1], '^(%d+)-(%d+)$')
  return ms .. '-' .. text(math.max(seq - 1, 0)) .. '-' .. stands.epoch
end
local id = append(events, state, stands, epoch, push, header .. publisher .. ':' .. number, data, kept,
  publisher, number)
if not last and redis.call('HLEN', state) > 64 then
  -- This publisher is new here, and the state has many: remove those that published nothing for an hour,
  -- because they will not send an old publish again. Look at some 32 fields only, and remember in `swept`
  -- where to go on. There may be 20,000 of them, from short-lived processes that have published once each. To
  -- look at all of them with each new publisher would block the server.
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

# The script of a plain publish. It has two ways to do the same.
#
# The short way comes first. Nearly every publish takes it, with half as many commands as the long way. It is
# for a new channel, and for a channel that knows the publisher. The long way is `_COMMON` and `_KEEP` behind
# it, for everything else: a publisher's first publish to an existing channel, a publish that is sent again, a
# damaged state, an entry of another program, a clock that is behind. Which way to take is decided before
# anything is written, so that the long way starts from an unchanged channel. A test compares what the two
# ways leave behind.
#
# * A channel is new if it has neither a state nor entries.
# * XADD is the first write. If it fails, nothing has changed, and the long way handles the failure. If it
#   succeeds, so do the writes after it, even if the server has no memory left.
# * With the first event of each second, old events are trimmed and the expiry of the keys is set, as in
#   `tidy`. If the state has an `age`, the long way does that, because that age can be the longer one.
_PUBLISH: Final = (
    """
local events, state = KEYS[1], KEYS[2]
local epoch, push, kept, age, expire, header, data, publisher, number = unpack(ARGV)
local call = redis.call
local found, time = call('HMGET', state, 'epoch', 'ms', 'seq', publisher, 'age'), call('TIME')
local life, before, seq = found[1], found[2], tonumber(found[3] or '')
local last = tonumber(found[4] and string.match(found[4], '^%d+') or '')
local ms = time[1] .. string.sub('00000' .. time[2], -6, -4)
-- The newest event is of this second of the clock, so the channel was tidied in this second.
local fresh = before and string.sub(before, 1, -4) == time[1]
local begins = not (life or before or found[3]) and call('XLEN', events) == 0
if begins then life, before, seq = epoch, '0', 0 end
-- A new channel, or one with a complete state and an older publish of this publisher; a clock that is not
-- behind the newest event; and no `age` if it has to be tidied.
if (begins or life and before and seq and last and last < tonumber(number))
  and (#ms > #before or #ms == #before and ms >= before) and (fresh or not found[5]) then
  seq = string.format('%.0f', seq + 1)
  local id = ms .. '-' .. seq
  local added = redis.pcall('XADD', events, 'MAXLEN', '~', kept, id,
    'h', life .. header .. publisher .. ':' .. number, 'd', data)
  -- Otherwise, the long way finds the same error, and handles or raises it.
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

# The script of a publish with an idempotency key, or with a `max_age` of its own.
#
# The idempotency key is looked up before anything else. It is a key of its own, and holds the id of the event
# that was published with it. It works across publishers and restarts; the numbers in `_KEEP` work only for
# retries of one publisher.
#
# A `max_age` that is longer than usual is stored in the state as `age`, for `tidy`. The field `until` has the
# time at which the last event with one expires. Until then, `age` never falls: a later event with a shorter
# `max_age` must not have an earlier event trimmed while both are still to be kept. A `max_age` that is
# shorter than usual needs nothing here, because `history` leaves out what has expired.
_WISHED: Final = (
    """
local events, state, once = unpack(KEYS)
local epoch, push, kept, age, expire, header, data, publisher, own, number = unpack(ARGV)
if once then
  local known = redis.call('GET', once)
  if known then return known end
end
local found, last
"""
    + _COMMON
    + """
if own ~= '' and tonumber(own) > tonumber(age ~= '0' and age or expire) then
  redis.call('XLEN', events)  -- fails if the key is not a stream, before a state is left beside it
  local had = redis.call('HMGET', state, 'age', 'until', 'ms')
  local now, longest = math.max(clock(), had[3] or 0), tonumber(own)
  local ends = now + longest
  if had[1] and tonumber(had[2] or now) >= now then
    longest, ends = math.max(longest, had[1]), math.max(ends, had[2] or now + had[1])
  end
  redis.call('HSET', state, 'age', text(longest), 'until', text(ends))
end
local function publish()
"""
    + _KEEP
    + """
end
local answer = publish()
local id = type(answer) == 'table' and answer[1] or answer
-- The event is stored, so a repetition within the next five minutes (`WINDOW`) is answered with its id.
if once then redis.call('SET', once, id, 'PX', 300000) end
if own ~= '' then tidy(events, state, {ms = string.match(id, '^%d+')}, age, expire) end
return answer
"""
)

# One page of the history, from the newest entry back. `before` is where the previous page ended: `+` for the
# first page, then `(` and an id.
_HISTORY: Final = (
    _OPTIONAL
    + _COMMON
    + """
local events, state = KEYS[1], KEYS[2]
local age, expire, most, since_epoch, since_seq, before = unpack(ARGV)
local stands = known(state, 'epoch')
if not stands then
  redis.call('XLEN', events)  -- fails if the key is not a stream, which is not an empty channel
  return {clock()}
end
optionally(tidy, events, state, stands, age, expire)
most = tonumber(most)
if since_epoch == stands.epoch and tonumber(since_seq) <= stands.seq then
  -- One entry more than there are after the position: the event at the position. If its time is not that of
  -- the position, the position is of another branch, from before a failover.
  most = math.min(most, stands.seq - since_seq + 1)
end
local found, ended = page('XREVRANGE', events, before, '-', most)
return {clock(), stands.epoch, stands.ms, text(stands.seq), found, ended}
"""
)

# One page of entries after a position, and two entries by which `Standing` sees whether the position is still
# part of the channel: the oldest entry, and the newest entry that is not after the position. If the latter
# is not the event at the position, that event was trimmed, or a failover has replaced it.
#
# For a position of another epoch, the page starts at the oldest entry.
_READ: Final = (
    _COMMON
    + """
local events, state = KEYS[1], KEYS[2]
local epoch, ms, seq, count = unpack(ARGV)
local stands = known(state, 'epoch')
if not stands then
  redis.call('XLEN', events)  -- fails if the key is not a stream, as above
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

# The newest id of each of some channels, by the keys of their states; '' for a channel without a state.
#
# Each process that watches a channel asks this twice a minute. So this also keeps the channel from expiring:
# without its state, the next event would start a new epoch, and every reader would get a gap although nothing
# is missing. Events with an `age` may expire all the same.
_STANDINGS: Final = (
    _OPTIONAL
    + _COMMON
    + """
local age, expire = unpack(ARGV)
local all = {}
for i, state in ipairs(KEYS) do
  -- `pcall`, because a key of another type must not hide the other channels.
  local found = redis.pcall('HMGET', state, 'ms', 'seq', 'epoch', 'age')
  if found[1] and found[2] and found[3] then
    local until_gone = found[4] and text(math.max(expire, found[4] + 60000)) or expire
    optionally(redis.call, 'PEXPIRE', state, until_gone)
    if age == '0' then optionally(redis.call, 'PEXPIRE', string.sub(state, 1, -7), until_gone) end
    all[i] = found[1] .. '-' .. found[2] .. '-' .. found[3]
  else
    all[i] = ''
  end
end
return all
"""
)

# The random id of the server's memory. It is set if it is missing. So it changes when the server loses its
# data, for example in a restart without persistence. A reader of an empty channel notices the loss by it.
#
# It is read first, because a server that is full, or that refuses all writes, refuses to set it even if it is
# there, and readers need it then, too. If it is missing then, the id is a part of the server's `run_id`. That
# changes when the server restarts. When the server accepts writes again, the key gets an id of its own. A
# reader that comes back to an empty channel after that gets a gap, because nobody knows what happened in
# between.
_MEMORY: Final = (
    _OPTIONAL
    + """
local known = redis.call('GET', KEYS[1])
if known then return known end
local set = redis.pcall('SETNX', KEYS[1], ARGV[1])
if type(set) ~= 'table' then return ARGV[1] end
if not (refuses(set.err) or string.find(set.err, 'maxmemory', 1, true)) then return set end
local info = redis.pcall('INFO', 'server')
-- Without the right to ask, it is an id that nobody has.
return type(info) == 'string' and string.match(info, 'run_id:(%x%x%x%x%x%x%x%x)') or ARGV[1]
"""
)

# What an operator wants to know about a channel. The user may not be allowed to run one of the commands, or
# a key may be of another type. Then that part of the answer is nil, and the rest still helps.
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

# What is done with the members of a channel: `appear`, `vanish`, `members`, `count`, `count keys`, `reap`.
#
# Each action first removes members that have expired. Any process may do this, at any time: only the call
# whose ZREM removes the member publishes the leave event, so there is exactly one.
#
# `members` returns one page of the hash, and the cursor of HSCAN for the next one. The info of a member can
# have any size, so the number of members alone does not limit how much a script writes or returns.
#
# events, state  The stream and the state of the companion channel, which carries the joins and leaves.
# members        A hash. By member id: `<id of the join event> <key, percent-encoded> <leave event>`. The
#                leave event is stored because the member's process may be gone when it is needed. It ends
#                before the number of sockets, which is not known until then.
# deadlines      A sorted set of the member ids by the time at which they expire.
# keys           A hash with the number of members by key. The empty field has the sum of these numbers.
_PRESENCE: Final = (
    _COMMON
    + """
local events, state, members, deadlines, keys = unpack(KEYS)
-- Only these seven. After them come up to four values for each member, and `unpack` fails for more than some
-- 8,000 values.
local epoch, push, kept, age, expire, action, ttl = unpack(ARGV, 1, 7)
local stands = nil
local now = clock()

-- Publish a join or a leave. The state is read at most once for each call of the script.
local function tell(data)
  stands = stands or standing(events, state, epoch, 'epoch')
  return append(events, state, stands, epoch, push, 's', data, kept)
end

-- The number of members with a key, after one has joined (1) or left (-1). Members without a key have the
-- empty one, and each of them counts alone.
local function counted(key, more)
  if key == '' then return more > 0 and 1 or 0 end
  redis.call('HINCRBY', keys, '', more)
  local sockets = redis.call('HINCRBY', keys, key, more)
  if sockets < 1 then redis.call('HDEL', keys, key) end
  return math.max(sockets, 0)
end

-- Remove a member. Returns the bytes of what was stored of it.
local function leave(id)
  local member = nil
  -- Only one caller removes the member, however many try: it publishes the leave.
  if redis.call('ZREM', deadlines, id) == 1 then
    member = redis.call('HGET', members, id)
    redis.call('HDEL', members, id)
    local key, left = string.match(member or '', '^%S+ ([^{%s]*) (.*)$')
    if key then
      tell(left .. text(counted(key, -1)) .. '}')
    elseif member and string.find(member, '^%S+ {') then
      tell(string.match(member, ' (.*)$'))  -- stored by a version without `key`: the whole leave event
    end
  end
  return #(member or '')
end

-- No member can expire later than after the longest `ttl` of any process. If one does, a clock that was ahead
-- has stored it: this server's before it was set right, or that of a primary that has failed. Without this,
-- the members of a crashed process would stay until the clock has caught up.
local longest = tonumber(redis.call('HMGET', state, 'ttl')[1] or '0')
local ahead = {}
if longest > 0 then
  local latest = text(now + math.max(longest, ttl))
  ahead = redis.call('ZRANGEBYSCORE', deadlines, '(' .. latest, '+inf', 'LIMIT', 0, 500)
  for _, id in ipairs(ahead) do
    if type(redis.pcall('ZADD', deadlines, latest, id)) == 'table' then
      ahead = {}  -- a server without free memory refuses it, and everything else has to go on
      break
    end
  end
end

-- Remove expired members, at most 500 and not much more than 256 kB of them, because the server answers
-- nobody else meanwhile. If there may be more, the answer begins with 1, and the caller runs the script
-- again.
local over = redis.call('ZRANGEBYSCORE', deadlines, '-inf', now, 'LIMIT', 0, 500)
local removed, size = 0, 0
while removed < #over and size < 262144 do
  removed = removed + 1
  size = size + leave(over[removed])
end
local more = (removed == 500 or removed < #over or #ahead == 500) and 1 or 0
if action == 'appear' then
  -- Without members, no key has any. The stored counts may be higher, because a version without `key` does
  -- not count the members that it removes. Delete only what exists: the delete would be the script's first
  -- write, and after it a server without memory would no longer refuse the new members.
  if redis.call('ZCARD', deadlines) == 0 and redis.call('EXISTS', keys) == 1 then redis.call('DEL', keys) end
  for i = 8, #ARGV, 4 do
    local id, joins, leaves, key = unpack(ARGV, i, i + 3)
    -- Only a new member joins. So it does no harm if this is sent again after a lost answer.
    if not redis.call('ZSCORE', deadlines, id) then
      local joined = tell(joins .. text(counted(key, 1)) .. '}')
      redis.call('HSET', members, id, joined .. ' ' .. key .. ' ' .. leaves)
    end
    redis.call('ZADD', deadlines, text(now + ttl), id)
  end
  -- Only with a join, or if there is one already: then the state is there, and expires some time.
  if longest > 0 then
    if longest < tonumber(ttl) then redis.call('HSET', state, 'ttl', ttl) end
  elseif stands then
    -- The state is new, or of a version without `ttl`, and there may be members of processes with a longer
    -- one. These keep the time that they have left.
    local count = redis.call('ZCARD', deadlines)
    local last = redis.call('ZRANGEBYSCORE', deadlines, '-inf', '+inf', 'WITHSCORES', 'LIMIT', count - 1, 1)
    redis.call('HSET', state, 'ttl', text(math.max(ttl, last[2] - now)))
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
  -- Not much more than 256 kB. HSCAN is asked for one member first, then for as many as should fit by the
  -- mean size of those found. It never leaves out a member that is there throughout.
  local cursor, all, bytes, count = ARGV[8], {}, 0, 1
  repeat
    local part = redis.call('HSCAN', members, cursor, 'COUNT', text(count))
    cursor = part[1]
    for _, each in ipairs(part[2]) do
      all[#all + 1] = each
      bytes = bytes + #each
    end
    count = #all == 0 and 2 * count or math.ceil(math.max(262144 - bytes, 0) * #all / 2 / bytes)
  until cursor == '0' or bytes >= 262144
  -- A cursor is of use only to the server that has returned it. So the answer says which one that is, if the
  -- user may know.
  local info = redis.pcall('INFO', 'server')
  found = {cursor, all, type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''}
elseif action == 'count' then
  found = redis.call('ZCARD', deadlines)
elseif action == 'count keys' then
  -- The members without a key, and the keys. One field of the hash, the sum, is not a key.
  local keyed = tonumber(redis.call('HMGET', keys, '')[1] or '0')
  found = redis.call('ZCARD', deadlines) - keyed + math.max(redis.call('HLEN', keys) - 1, 0)
end
return {more, found}
"""
)


class Script:
    """A script, and the SHA-1 digest by which the server runs it after `SCRIPT LOAD`."""

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

# The same scripts for a cluster. There, `PUBLISH` would send each event to every node. `SPUBLISH` sends it
# only to listeners at the nodes that have the channel's slot.
SHARDED: Final = {
    name: Script(
        script.source.decode().replace("'PUBLISH'", "'SPUBLISH'").replace("'NUMSUB'", "'SHARDNUMSUB'")
    )
    for name, script in SCRIPTS.items()
}
