"""Mailboxes in Redis, for all processes of a service. Each call is one script, which Redis runs by itself alone.

    quice:mailbox:N             a hash: who has opened mailbox N, what is in it, and when it ends; then it rests
    quice:mailboxes             all of them, and those that rest, by when their number is free again
    quice:mailboxes:peer:K      those that the peer with key K has open, by when they end
    quice:mailboxes:source:S    the same of an address
    quice:limit:WHAT            when as much as was used of a limit is there again

All of it expires. The time is that of Redis, which is the same for all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from quice.errors import StoreUnreachableError
from quice.identity import PeerId
from quice.server import mailboxes as rules
from quice.server.mailboxes import Limit, Mailbox
from quice.wire import Random

# ARGV: the time, or nothing for that of Redis; how long numbers rest; then those of each script.
_COMMON = """
local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] + time[2] / 1e6
end
local rest = tonumber(ARGV[2])
local ALL = 'quice:mailboxes'
local function by_peer(peer) return ALL .. ':peer:' .. peer end
local function by_source(source) return ALL .. ':source:' .. source end
local function key(number) return 'quice:mailbox:' .. number end
-- What is open under a number.
local function look(number)
  local box = redis.call('HMGET', key(number), 'opener', 'body', 'claimant', 'answer', 'reply', 'ends', 'source',
    'opened')
  if box[1] and tonumber(box[6]) > now then return box end
end
local function keep(number, opener, source, ends)
  redis.call('HSET', key(number), 'ends', ends)
  redis.call('PEXPIRE', key(number), math.ceil((ends + rest - now) * 1000))
  redis.call('ZADD', ALL, ends + rest, number)
  for _, set in ipairs({by_peer(opener), by_source(source)}) do
    redis.call('ZADD', set, ends, number)
    local left = math.ceil((ends - now) * 1000)
    if redis.call('PTTL', set) < left then redis.call('PEXPIRE', set, left) end
  end
  if redis.call('TTL', ALL) < 86400 then redis.call('EXPIRE', ALL, 172800) end
end
local function told(box) return {box[1], box[2], box[3], box[4], box[5]} end
"""
# opener, source, body, lifetime, the most of a peer, of a source, of all, numbers to try
_OPEN = """
local opener, source, body, lifetime = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local mine = by_peer(opener)
for _, set in ipairs({mine, by_source(source), ALL}) do redis.call('ZREMRANGEBYSCORE', set, '-inf', now) end
for _, number in ipairs(redis.call('ZRANGE', mine, 0, -1)) do
  if redis.call('HGET', key(number), 'body') == body then return tonumber(number) end
end
if redis.call('ZCARD', mine) >= tonumber(ARGV[7]) or redis.call('ZCARD', by_source(source)) >= tonumber(ARGV[8])
  or redis.call('ZCARD', ALL) >= tonumber(ARGV[9]) then return false end
for i = 10, #ARGV do
  local number = ARGV[i]
  if not redis.call('ZSCORE', ALL, number) then
    redis.call('DEL', key(number))
    redis.call('HSET', key(number), 'opener', opener, 'source', source, 'body', body, 'opened', now)
    keep(number, opener, source, now + lifetime)
    return tonumber(number)
  end
end
return false
"""
# number, opener, lifetime, longest
_ATTEND = """
local box = look(ARGV[3])
if not box or box[1] ~= ARGV[4] then return false end
if not box[3] then keep(ARGV[3], box[1], box[7], math.min(now + ARGV[5], box[8] + ARGV[6])) end
return told(box)
"""
# number, claimant, how long an exchange may take
_CLAIM = """
local box = look(ARGV[3])
if not box or box[1] == ARGV[4] or (box[3] and box[3] ~= ARGV[4]) then return false end
if not box[3] then
  box[3] = ARGV[4]
  redis.call('HSET', key(ARGV[3]), 'claimant', box[3])
  keep(ARGV[3], box[1], box[7], now + ARGV[5])
end
return told(box)
"""
# number, peer, body
_PUT = """
local box = look(ARGV[3])
if not box then return false end
local place
if box[3] and ARGV[4] == box[3] then place = 4 elseif ARGV[4] == box[1] and box[4] then place = 5 end
if not place then return false end
if not box[place] then
  box[place] = ARGV[5]
  redis.call('HSET', key(ARGV[3]), place == 4 and 'answer' or 'reply', ARGV[5])
end
return box[place] == ARGV[5] and told(box)
"""
# number, peer
_CLOSE = """
local box = look(ARGV[3])
if not box or (ARGV[4] ~= box[1] and ARGV[4] ~= box[3]) then return false end
keep(ARGV[3], box[1], box[7], now)
redis.call('HDEL', key(ARGV[3]), 'opener', 'body', 'claimant', 'answer', 'reply', 'source')
redis.call('ZREM', by_peer(box[1]), ARGV[3])
redis.call('ZREM', by_source(box[7]), ARGV[3])
return told(box)
"""
# what, burst, interval
_ALLOW = """
local name, interval = 'quice:limit:' .. ARGV[3], tonumber(ARGV[5])
local whole = math.max(tonumber(redis.call('GET', name) or now), now)
if whole - now > (ARGV[4] - 1) * interval then return 0 end
if interval > 0 then redis.call('SET', name, whole + interval, 'PX', math.ceil((whole + interval - now) * 1000)) end
return 1
"""


class RedisMailboxes:
    """A `MailboxStore`. Its calls raise `StoreUnreachableError` when Redis is not there: then nothing is known to have
    happened, and it can be said again.
    """

    def __init__(self, redis: Redis, rng: Random, clock: Callable[[], float] | None = None) -> None:
        """`clock`: the time in seconds, instead of Redis's."""
        self._rng = rng
        self._clock = clock
        scripts = {"open": _OPEN, "attend": _ATTEND, "claim": _CLAIM, "put": _PUT, "close": _CLOSE, "allow": _ALLOW}
        self._scripts = {name: redis.register_script(_COMMON + script) for name, script in scripts.items()}

    async def open(self, opener: PeerId, source: str, body: bytes) -> int | None:
        """See `MailboxStore`."""
        limits = (rules.MAX_BY_PEER, rules.MAX_BY_SOURCE, rules.MAX_MAILBOXES)
        numbers = rules.numbers(self._rng)
        number: int | None = await self._run("open", opener.key, source, body, rules.LIFETIME, *limits, *numbers)
        return number

    async def attend(self, number: int, opener: PeerId) -> Mailbox | None:
        """See `MailboxStore`."""
        return _mailbox(await self._run("attend", number, opener.key, rules.LIFETIME, rules.LONGEST))

    async def claim(self, number: int, claimant: PeerId) -> Mailbox | None:
        """See `MailboxStore`."""
        return _mailbox(await self._run("claim", number, claimant.key, rules.EXCHANGE))

    async def put(self, number: int, peer: PeerId, body: bytes) -> Mailbox | None:
        """See `MailboxStore`."""
        return _mailbox(await self._run("put", number, peer.key, body))

    async def close(self, number: int, peer: PeerId) -> Mailbox | None:
        """See `MailboxStore`."""
        return _mailbox(await self._run("close", number, peer.key))

    async def allow(self, what: str, limit: Limit) -> bool:
        """See `MailboxStore`."""
        return bool(await self._run("allow", what, limit.burst, limit.interval))

    async def _run(self, name: str, *arguments: Any) -> Any:
        now = "" if self._clock is None else repr(self._clock())
        try:
            return await self._scripts[name](args=[now, rules.REST, *arguments])
        except (RedisError, OSError, asyncio.TimeoutError) as error:
            raise StoreUnreachableError(str(error)) from error


def _mailbox(found: list[bytes | None] | None) -> Mailbox | None:
    if found is None:
        return None
    opener, body, claimant, answer, reply = found
    assert opener is not None
    assert body is not None
    return Mailbox(PeerId(opener), body, None if claimant is None else PeerId(claimant), answer, reply)
