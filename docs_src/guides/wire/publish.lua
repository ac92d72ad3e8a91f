-- Keeps one event of a channel and pushes it. Format 1 of lilya.websockets.channels.
local events, state = KEYS[1], KEYS[2]
local epoch, push, kept, expire, kind, payload = unpack(ARGV)
local found = redis.call('HMGET', state, 'epoch', 'ms', 'seq')
if not (found[1] and found[2] and found[3]) then
  found = {epoch, '0', '0'} -- the channel begins
  redis.call('DEL', events)
end
local time = redis.call('TIME')
local ms = time[1] .. string.sub('00000' .. time[2], -6, -4)
if #ms < #found[2] or (#ms == #found[2] and ms < found[2]) then ms = found[2] end
local seq = string.format('%.0f', found[3] + 1)
redis.call('XADD', events, 'MAXLEN', '~', kept, ms .. '-' .. seq, 'h', found[1] .. kind, 'd', payload)
redis.call('HSET', state, 'epoch', found[1], 'ms', ms, 'seq', seq)
redis.call('PEXPIRE', events, expire)
redis.call('PEXPIRE', state, expire)
local id = ms .. '-' .. seq .. '-' .. found[1]
redis.call('PUBLISH', events .. push, id .. ' ' .. kind .. payload)
return id
