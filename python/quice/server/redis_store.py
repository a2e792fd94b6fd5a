"""A store in Redis, through which the processes of one service share where peers are, and send each other messages.

    quice:process:P    there while process P is: it expires unless P renews it
    quice:at:K         the process at which the peer with key K is registered, and which of its registrations that is
    quice:inbox:P      a list of parcels for process P

A list, because taking from it is taking: a process that ends leaves in its inbox what it has not taken, and that may go
elsewhere without a doubt. Of a stream's entry nobody would know whether it was read; what is published is gone with its
reader. Redis holds nothing that must not be lost: without it each process goes on with the peers that it has, and tells
it of them when it is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from quice.errors import StoreUnreachableError
from quice.machine import this_machine
from quice.server import parcels
from quice.server.logs import Event, about
from quice.server.mailboxes import MailboxStore
from quice.server.parcels import Letter, Outbox, Parcel, Place, Sent
from quice.server.redis_mailboxes import RedisMailboxes
from quice.server.store import LocalPeers, PeerKey, Taken
from quice.wire import random_bytes

logger = logging.getLogger(__name__)

LEASE = 10.0
"""Seconds after which a process of which nothing is heard has ended for the others."""
_RENEWAL = 2.0
_ENTRY = 120
"""Seconds for which Redis knows where a peer is, unless its process says it again."""
_REFRESH = 30.0
_CHUNK = 200
"""Peers in one command."""
_LOOK = 0.25
"""Seconds between two looks at what is on its way."""
_BLOCK = 1.0
"""Seconds that taking from an empty inbox waits."""
_PACE = (0.005, 0.05)
"""Seconds between two times of sending, or of taking: what comes meanwhile goes together, at a fraction of the cost."""
_SHARE = 4
"""How many times longer than it takes to send that is, where these allow it: a busy machine is not kept busier so."""
_TAKE = 64
"""Parcels taken at once."""
_TIMEOUT = 5.0
"""Seconds that Redis may take to answer."""
_BACKOFF = (0.1, 5.0)
"""The most seconds before the first and, doubled each time, before a later try to reach Redis again."""
_INBOX_LIFETIME = 60
_MAX_PLACES = 100_000
_PROCESS_LENGTH = 8
_FAILURES = (RedisError, OSError, asyncio.TimeoutError)

# KEYS: the peer's entry. ARGV: the new entry, its lifetime, whether to replace, our process, where processes are.
_CLAIM = """
local old = redis.call('GET', KEYS[1])
if old and ARGV[3] == '0' then
  local process = string.match(old, '^[^:]*')
  if process ~= ARGV[4] and redis.call('EXISTS', ARGV[5] .. process) == 1 then return {0, old} end
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return {1, old or ''}
"""
# KEYS: entries. ARGV: what each is if it is still ours.
_RELEASE = """
for i, key in ipairs(KEYS) do
  if redis.call('GET', key) == ARGV[i] then redis.call('DEL', key) end
end
"""
# KEYS: entries. ARGV: their lifetime, and what each is to be, unless the peer has gone elsewhere since. Returns the
# numbers of those that have.
_KEEP = """
local gone = {}
for i, key in ipairs(KEYS) do
  local entry = redis.call('GET', key)
  if not entry or entry == ARGV[i + 1] then
    redis.call('SET', key, ARGV[i + 1], 'EX', ARGV[1])
  else
    gone[#gone + 1] = i - 1
  end
end
return gone
"""
# KEYS: the process, its inbox. ARGV: the parcel, the inbox's lifetime.
_PUSH = """
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
return 1
"""


@dataclass(eq=False)
class _Claim:
    """A peer that wants to be registered here, and waits for the answer."""

    peer: PeerKey
    number: int
    replace: bool
    answer: asyncio.Future[bool]


class RedisStore:
    """The service as one of its processes sees it, through Redis."""

    def __init__(self, url: str) -> None:
        """`url`: as `redis://host:6379/0`, `rediss://` with TLS, or `unix://path`. Raises `ValueError` for another."""
        never = Retry(NoBackoff(), 0)
        self._redis = Redis.from_url(
            url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT, retry=never, retry_on_error=[]
        )
        self._rng = this_machine().random
        self._loop = asyncio.get_running_loop()
        self.process = random_bytes(self._rng, _PROCESS_LENGTH).hex()
        """This process's name among the others."""
        self.outbox = Outbox(self.process)
        self.mailboxes: MailboxStore = RedisMailboxes(self._redis, self._rng)
        self._claims: dict[PeerKey, int] = {}
        """The registrations of peers that are here, by number."""
        self._claimed = 0
        self._claiming: list[_Claim] = []
        self._released: dict[PeerKey, int] = {}
        self._wanted = asyncio.Event()
        self._back = asyncio.Event()
        self._looked = asyncio.Event()
        self._alarm: asyncio.Future[None] = self._loop.create_future()
        self.trouble: str | None = None
        self._tasks: list[asyncio.Task[None]] = []
        # The library can swallow a cancellation that comes together with an answer.
        self._closed = False
        self._local: LocalPeers

    async def open(self, local: LocalPeers) -> None:
        """See `Store`."""
        self._local = local
        try:
            await self._renew_lease()
        except _FAILURES as error:
            await self._redis.aclose()
            raise StoreUnreachableError(str(error)) from error
        self._back.set()
        work = (self._stay(), self._send_on(), self._take_on(), self._look_on())
        self._tasks = [asyncio.create_task(each, name="quice store") for each in work]

    async def claim(self, peer: PeerKey, *, replace: bool) -> bool:
        """See `Store`. Without Redis the peer is registered here for as long as that is so."""
        self._claimed += 1
        number = self._claimed
        if self.trouble is None:
            answer: asyncio.Future[bool] = self._loop.create_future()
            self._claiming.append(_Claim(peer, number, replace, answer))
            self._wanted.set()
            if not await answer:
                return False
        self._claims[peer] = max(number, self._claims.get(peer, 0))
        return True

    def release(self, peer: PeerKey) -> None:
        """See `Store`."""
        number = self._claims.pop(peer, None)
        if number is not None:
            self._released[peer] = number
            self._wanted.set()

    def forward(self, to: PeerKey, message: bytes, failed: Callable[[], None]) -> None:
        """See `Store`."""
        if self.trouble is not None:
            failed()
            return
        self.outbox.put(Letter(to, message, failed, self._loop.time() + parcels.PATIENCE))
        self._wanted.set()

    async def settle(self) -> None:
        """See `Store`."""
        while not self.outbox.is_empty or self._released:
            await self._looked.wait()

    async def close(self) -> None:
        """See `Store`."""
        self._closed = True
        self._claim_alone()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.outbox.give_up()
        with contextlib.suppress(*_FAILURES):
            self._released |= self._claims
            await self._tell_released()
            await self._redis.delete(_PROCESS + self.process)
        await self._redis.aclose()

    # Being there.

    async def _stay(self) -> None:
        """Renew the lease, and say who is here."""
        attempts, refreshed = 0, self._loop.time()
        while not self._closed:
            try:
                if self.trouble is not None:
                    # Those from before may be dead without knowing it.
                    await self._redis.connection_pool.disconnect()
                await self._renew_lease()
                # What others have been told of peers here may be gone, with Redis or with the time.
                if self.trouble is not None or self._loop.time() - refreshed >= _REFRESH:
                    refreshed = self._loop.time()
                    await self._say_who_is_here()
            except _FAILURES as error:
                self._lose(error)
                most = min(_BACKOFF[0] * 2**attempts, _BACKOFF[1])
                attempts = min(attempts + 1, 10)
                await asyncio.sleep(most * self._rng.getrandbits(16) / (1 << 16))
            else:
                attempts = 0
                self._find()
                await self._sleep(_RENEWAL)

    async def _sleep(self, seconds: float) -> None:
        """Wait for trouble, for so long at most."""
        self._alarm = self._loop.create_future()
        timer = self._loop.call_later(seconds, _ring, self._alarm)
        try:
            await self._alarm
        finally:
            timer.cancel()

    async def _renew_lease(self) -> None:
        await self._redis.set(_PROCESS + self.process, b"1", px=int(LEASE * 1000))

    async def _say_who_is_here(self) -> None:
        claims = list(self._claims.items())
        for start in range(0, len(claims), _CHUNK):
            chunk = claims[start : start + _CHUNK]
            keys = [_AT + peer for peer, _ in chunk]
            entries = [self._entry(number) for _, number in chunk]
            gone = await cast("Any", self._redis.eval(_KEEP, len(keys), *keys, _ENTRY, *entries))
            for index in gone:
                self._replaced(*chunk[index])

    def _replaced(self, peer: PeerKey, number: int) -> None:
        """This registration of the peer is none any more."""
        if self._claims.get(peer) == number:
            del self._claims[peer]
            self._local.replaced(peer)

    def _lose(self, error: Exception) -> None:
        if self.trouble is None:
            self.trouble = "Redis is not reached"
            self._back.clear()
            _ring(self._alarm)
            logger.warning(
                "Redis is not reached, peers at other processes are not either: %s",
                error,
                extra=about(Event.REDIS_LOST),
            )
            self.outbox.give_up()
            self.outbox.places.clear()
            self._claim_alone()

    def _find(self) -> None:
        if self.trouble is not None:
            self.trouble = None
            self._back.set()
            self._wanted.set()
            logger.info("Redis is back", extra=about(Event.REDIS_BACK))

    # Sending.

    async def _send_on(self) -> None:
        while not self._closed:
            await self._wanted.wait()
            await self._back.wait()
            self._wanted.clear()
            began = self._loop.time()
            try:
                await self._flush()
            except _FAILURES as error:
                self._lose(error)
            await self._pause(began)

    async def _flush(self) -> None:
        if self._released:
            await self._tell_released()
        if self._claiming:
            await self._tell_claims()
        outbox = self.outbox
        absent: set[PeerKey] = set()
        if len(outbox.places) > _MAX_PLACES:
            outbox.places.clear()
        if unknown := outbox.unknown():
            for peer, entry in zip(unknown, await self._redis.mget([_AT + peer for peer in unknown]), strict=True):
                place = _place(entry)
                if place is None:
                    absent.add(peer)
                else:
                    outbox.places[peer] = place
        sent = outbox.pack(absent, self._loop.time())
        outbox.hand_out(self._local.take)
        if not sent:
            return
        async with self._redis.pipeline(transaction=False) as pipeline:
            for parcel in sent:
                pipeline.eval(_PUSH, 2, _PROCESS + parcel.to, _INBOX + parcel.to, parcel.data, _INBOX_LIFETIME)
            # Of those that fail here nobody knows; they are reported when their time is over.
            pushed = await pipeline.execute()
        for parcel, there in zip(sent, pushed, strict=True):
            if not there:
                outbox.bounced(parcel)
        if outbox.letters:
            self._wanted.set()

    async def _tell_claims(self) -> None:
        claims = self._claiming[:_CHUNK]
        async with self._redis.pipeline(transaction=False) as pipeline:
            for claim in claims:
                arguments = (self._entry(claim.number), _ENTRY, int(claim.replace), self.process, _PROCESS)
                pipeline.eval(_CLAIM, 1, _AT + claim.peer, *arguments)
            answers = await pipeline.execute()
        del self._claiming[: len(claims)]
        if self._claiming:
            self._wanted.set()
        for claim, (done, old) in zip(claims, answers, strict=True):
            place = _place(old)
            if done and place is not None and place.process != self.process:
                self.outbox.tell_replaced(place, claim.peer)
            if not claim.answer.done():
                claim.answer.set_result(bool(done))

    def _claim_alone(self) -> None:
        """Without Redis whoever proves the key has it, here."""
        claims, self._claiming = self._claiming, []
        for claim in claims:
            if not claim.answer.done():
                claim.answer.set_result(True)

    async def _tell_released(self) -> None:
        released, self._released = self._released, {}
        peers = list(released.items())
        try:
            while peers:
                chunk = peers[:_CHUNK]
                keys = [_AT + peer for peer, _ in chunk]
                entries = [self._entry(number) for _, number in chunk]
                await cast("Any", self._redis.eval(_RELEASE, len(keys), *keys, *entries))
                del peers[:_CHUNK]
        finally:
            self._released = dict(peers) | self._released

    async def _look_on(self) -> None:
        """See after what is on its way."""
        while not self._closed:
            await asyncio.sleep(_LOOK)
            now = self._loop.time()
            try:
                if self.trouble is None:
                    await self._look_after(self.outbox.stalled(now), now)
            except _FAILURES as error:
                self._lose(error)
            for sent in self.outbox.overdue(now):
                self.outbox.lost(sent)
            self.outbox.expire(now)
            self._looked.set()
            self._looked.clear()
            if self.outbox.has_work:
                self._wanted.set()

    async def _look_after(self, stalled: list[Sent], now: float) -> None:
        """Take back what was not taken; give up what was, if whoever took it has ended."""
        if not stalled:
            return
        async with self._redis.pipeline(transaction=False) as pipeline:
            for sent in stalled:
                pipeline.lrem(_INBOX + sent.to, 1, cast("str", sent.data))
                pipeline.exists(_PROCESS + sent.to)
            answers = await pipeline.execute()
        for sent, was_there, is_alive in zip(stalled, answers[::2], answers[1::2], strict=True):
            if was_there:
                self.outbox.returned(sent, now)
            elif not is_alive:
                self.outbox.lost(sent)

    # Receiving.

    async def _take_on(self) -> None:
        inbox = [_INBOX + self.process]
        while not self._closed:
            await self._back.wait()
            try:
                taken = await cast(
                    "Any", self._redis.blmpop(_BLOCK, 1, *cast("Any", inbox), direction="LEFT", count=_TAKE)
                )
            except _FAILURES as error:
                self._lose(error)
                continue
            if taken is not None:
                began = self._loop.time()
                for data in taken[1]:
                    self._unpack(data)
                self._wanted.set()
                await self._pause(began)

    async def _pause(self, began: float) -> None:
        least, most = _PACE
        await asyncio.sleep(min(max(least, _SHARE * (self._loop.time() - began)), most))

    def _unpack(self, data: bytes) -> None:
        parcel = parcels.decode(data)
        if parcel is None:
            logger.warning(
                "a parcel of another process that is none: do all run the same version?",
                extra=about(Event.STRANGE_PARCEL),
            )
            return
        self.outbox.settle(parcel.sender, parcel.receipts, self._loop.time())
        for peer, number in parcel.replaced:
            self._replaced(peer, number)
        if parcel.number:
            self.outbox.acknowledge(parcel, self._hand_out(parcel))

    def _hand_out(self, parcel: Parcel) -> Iterable[Taken]:
        return [self._local.take(peer, message) for peer, message in parcel.messages]

    def _entry(self, number: int) -> str:
        return f"{self.process}:{number}"


_PROCESS = "quice:process:"
_INBOX = "quice:inbox:"
_AT = b"quice:at:"


def _ring(alarm: asyncio.Future[None]) -> None:
    if not alarm.done():
        alarm.set_result(None)


def _place(entry: bytes | str | None) -> Place | None:
    if not entry:
        return None
    text = entry.decode("ascii", "replace") if isinstance(entry, bytes) else entry
    process, _, number = text.partition(":")
    return Place(process, int(number)) if number.isdecimal() else None
