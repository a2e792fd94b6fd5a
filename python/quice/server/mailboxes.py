"""Mailboxes: two peers who know the same small number exchange three bodies, once.

The one who opens a mailbox leaves a body in it. The first who claims it gets that body, and answers; the one who has
opened it replies, and it is over. Whatever goes wrong, it is over as well: a code is good for one guess.

`Mailboxes` has the rules and knows what whom is told; a `MailboxStore` keeps what there is.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from quice.identity import PeerId
from quice.signal.protocol import (
    MAX_MAILBOX,
    AttendMailbox,
    ClaimMailbox,
    CloseMailbox,
    MailboxBody,
    MailboxClosed,
    MailboxEnd,
    MailboxOpened,
    MailboxTaken,
    MailboxToPeer,
    MailboxToServer,
    OpenMailbox,
    PutMailbox,
)
from quice.wire import Random

LIFETIME = 600.0
"""Seconds that a mailbox waits to be claimed after its opener was last heard of."""
LONGEST = 3600.0
"""Seconds that it waits in all, however often its opener attends to it."""
EXCHANGE = 60.0
"""Seconds from its claim to its end, for what both sides have to say."""
REST = 600.0
"""Seconds before a number is given to somebody else: a late or mistyped code is to burn nobody's."""
MAX_BY_PEER = 8
"""Mailboxes that one peer may have open."""
MAX_BY_SOURCE = 64
"""The same of all peers at one address."""
MAX_MAILBOXES = 100_000
"""The same of all peers, with the numbers that rest."""


class Limit(NamedTuple):
    """So many at once, and one each `interval` seconds."""

    burst: int
    interval: float


OPENINGS_BY_SOURCE = Limit(60, 2.0)
CLAIMS_BY_SOURCE = Limit(20, 3.0)
CLAIMS_BY_PEER = Limit(5, 12.0)

_DIGITS = len(str(MAX_MAILBOX))
_TRIES = 2
_LAST_TRIES = 32


@dataclass
class Mailbox:
    """Who has opened it and with what, and what has come since."""

    opener: PeerId
    body: bytes
    claimant: PeerId | None = None
    answer: bytes | None = None
    """Of the claimant."""
    reply: bytes | None = None
    """Of the opener, to the answer."""

    def put(self, peer: PeerId, body: bytes) -> bool:
        """Take the answer or the reply; returns whether it is this peer's turn, or was and this is what it has put."""
        if peer == self.claimant:
            if self.answer is None:
                self.answer = body
            return self.answer == body
        if peer == self.opener and self.answer is not None:
            if self.reply is None:
                self.reply = body
            return self.reply == body
        return False


class MailboxStore(Protocol):
    """Where mailboxes are kept. Each call is atomic, and None means that there is nothing to be had for this peer."""

    async def open(self, opener: PeerId, source: str, body: bytes) -> int | None:
        """Make a mailbox under a number of `numbers` that is free, unless this peer has one with this body already, and
        return its number. None when there may be no more of this peer, from this source, or at all.
        """

    async def attend(self, number: int, opener: PeerId) -> Mailbox | None:
        """The mailbox that this peer has opened. Unless it is claimed, it lives on: see `LIFETIME` and `LONGEST`."""

    async def claim(self, number: int, claimant: PeerId) -> Mailbox | None:
        """The mailbox, if nobody but this peer has claimed it, and another has opened it. It ends after `EXCHANGE`."""

    async def put(self, number: int, peer: PeerId, body: bytes) -> Mailbox | None:
        """The mailbox, after `Mailbox.put`, if that has let this peer put the body."""

    async def close(self, number: int, peer: PeerId) -> Mailbox | None:
        """The mailbox as it was, if this is one of its two peers; from now on its number rests, for `REST`."""

    async def allow(self, what: str, limit: Limit) -> bool:
        """Whether this may happen once more now; if so, it counts."""


class Mailboxes:
    """What becomes of a peer's message about mailboxes."""

    def __init__(self, store: MailboxStore) -> None:
        self._store = store

    async def handle(self, peer: PeerId, source: str, message: MailboxToServer) -> list[tuple[PeerId, MailboxToPeer]]:
        """Whom to tell what, now that this peer has sent this. Who is not there need not be told: it asks again.

        source: where the peer is, as `sources.source_of` has it.
        """
        match message:
            case OpenMailbox(body=body):
                return [(peer, await self._open(peer, source, body))]
            case AttendMailbox(number=number):
                return [(peer, answer) for answer in await self._attend(peer, number)]
            case ClaimMailbox(number=number):
                return await self._claim(peer, source, number)
            case PutMailbox(number=number, body=body):
                return await self._put(peer, number, body)
            case CloseMailbox(number=number):
                return await self._close(peer, number)

    async def _open(self, peer: PeerId, source: str, body: bytes) -> MailboxToPeer:
        if await self._store.allow(f"open {source}", OPENINGS_BY_SOURCE):
            number = await self._store.open(peer, source, body)
            if number is not None:
                return MailboxOpened(number=number, lifetime=LIFETIME, longest=LONGEST)
        return MailboxClosed(number=0, reason=MailboxEnd.LIMIT)

    async def _attend(self, peer: PeerId, number: int) -> list[MailboxToPeer]:
        mailbox = await self._store.attend(number, peer)
        if mailbox is None:
            return [MailboxClosed(number=number, reason=MailboxEnd.GONE)]
        if mailbox.claimant is None:
            return []
        told: list[MailboxToPeer] = [MailboxTaken(number=number, peer=mailbox.claimant.key)]
        if mailbox.answer is not None:
            told.append(MailboxBody(number=number, peer=mailbox.claimant.key, body=mailbox.answer))
        return told

    async def _claim(self, peer: PeerId, source: str, number: int) -> list[tuple[PeerId, MailboxToPeer]]:
        # Peers are made for nothing, so the address goes first.
        if not (
            await self._store.allow(f"claim {source}", CLAIMS_BY_SOURCE)
            and await self._store.allow(f"claim {peer}", CLAIMS_BY_PEER)
        ):
            return [(peer, MailboxClosed(number=number, reason=MailboxEnd.LIMIT))]
        mailbox = await self._store.claim(number, peer)
        if mailbox is None:
            return [(peer, MailboxClosed(number=number, reason=MailboxEnd.GONE))]
        return [
            (mailbox.opener, MailboxTaken(number=number, peer=peer.key)),
            (peer, MailboxBody(number=number, peer=mailbox.opener.key, body=mailbox.body)),
        ]

    async def _put(self, peer: PeerId, number: int, body: bytes) -> list[tuple[PeerId, MailboxToPeer]]:
        mailbox = await self._store.put(number, peer, body)
        if mailbox is None:
            return [(peer, MailboxClosed(number=number, reason=MailboxEnd.GONE))]
        assert mailbox.claimant is not None
        if mailbox.reply is not None:
            # Also when the answer is put again: then the reply may have been lost.
            return [(mailbox.claimant, MailboxBody(number=number, peer=mailbox.opener.key, body=mailbox.reply))]
        return [(mailbox.opener, MailboxBody(number=number, peer=peer.key, body=body))]

    async def _close(self, peer: PeerId, number: int) -> list[tuple[PeerId, MailboxToPeer]]:
        mailbox = await self._store.close(number, peer)
        if mailbox is None or mailbox.claimant is None or mailbox.reply is not None:
            return []
        other = mailbox.opener if peer == mailbox.claimant else mailbox.claimant
        return [(other, MailboxClosed(number=number, reason=MailboxEnd.CLOSED))]


def numbers(rng: Random) -> Iterator[int]:
    """Numbers to try for a new mailbox, until one is free: short ones first, and by chance, so that from a number
    nobody can tell those of others.
    """
    for digits in range(1, _DIGITS + 1):
        least, most = 10 ** (digits - 1), 10**digits - 1
        for _ in range(_TRIES if digits < _DIGITS else _LAST_TRIES):
            yield least + rng.getrandbits(64) % (most - least + 1)


@dataclass
class _Entry:
    mailbox: Mailbox
    source: str
    opened: float
    ends: float
    rests: bool = False


class MemoryMailboxes:
    """A `MailboxStore` in this process. `clock`: the time in seconds."""

    def __init__(self, clock: Callable[[], float], rng: Random) -> None:
        self._clock = clock
        self._rng = rng
        self._entries: dict[int, _Entry] = {}
        self._ends: list[tuple[float, int]] = []
        """When to look at an entry again; no later than it ends."""
        self._by_peer: dict[PeerId, set[int]] = {}
        self._by_source: Counter[str] = Counter()
        self._allowed: dict[str, float] = {}
        """When as much as was used of a limit is there again."""
        self._many = 1024

    def __len__(self) -> int:
        """How many mailboxes are open."""
        self._sweep()
        return self._by_source.total()

    async def open(self, opener: PeerId, source: str, body: bytes) -> int | None:
        """See `MailboxStore`."""
        now = self._sweep()
        own = self._by_peer.get(opener, set())
        if (there := next((number for number in own if self._entries[number].mailbox.body == body), None)) is not None:
            return there
        if len(own) >= MAX_BY_PEER or self._by_source[source] >= MAX_BY_SOURCE or len(self._entries) >= MAX_MAILBOXES:
            return None
        number = next((number for number in numbers(self._rng) if number not in self._entries), None)
        if number is not None:
            self._entries[number] = _Entry(Mailbox(opener, body), source, opened=now, ends=now)
            self._until(number, now + LIFETIME)
            self._by_peer.setdefault(opener, set()).add(number)
            self._by_source[source] += 1
        return number

    async def attend(self, number: int, opener: PeerId) -> Mailbox | None:
        """See `MailboxStore`."""
        entry = self._entry(number)
        if entry is None or entry.mailbox.opener != opener:
            return None
        if entry.mailbox.claimant is None:
            entry.ends = min(self._clock() + LIFETIME, entry.opened + LONGEST)
        return entry.mailbox

    async def claim(self, number: int, claimant: PeerId) -> Mailbox | None:
        """See `MailboxStore`."""
        entry = self._entry(number)
        if entry is None or claimant == entry.mailbox.opener or entry.mailbox.claimant not in (None, claimant):
            return None
        if entry.mailbox.claimant is None:
            entry.mailbox.claimant = claimant
            self._until(number, self._clock() + EXCHANGE)
        return entry.mailbox

    async def put(self, number: int, peer: PeerId, body: bytes) -> Mailbox | None:
        """See `MailboxStore`."""
        entry = self._entry(number)
        return entry.mailbox if entry is not None and entry.mailbox.put(peer, body) else None

    async def close(self, number: int, peer: PeerId) -> Mailbox | None:
        """See `MailboxStore`."""
        entry = self._entry(number)
        if entry is None or peer not in (entry.mailbox.opener, entry.mailbox.claimant):
            return None
        self._rest(number, self._clock())
        return entry.mailbox

    async def allow(self, what: str, limit: Limit) -> bool:
        """See `MailboxStore`."""
        now = self._clock()
        if len(self._allowed) >= self._many:
            self._allowed = {what: when for what, when in self._allowed.items() if when > now}
            self._many = max(1024, 2 * len(self._allowed))
        whole = max(self._allowed.get(what, now), now)
        if whole - now > (limit.burst - 1) * limit.interval:
            return False
        self._allowed[what] = whole + limit.interval
        return True

    def _entry(self, number: int) -> _Entry | None:
        """What is open under this number."""
        self._sweep()
        entry = self._entries.get(number)
        return None if entry is None or entry.rests else entry

    def _until(self, number: int, when: float) -> None:
        self._entries[number].ends = when
        heapq.heappush(self._ends, (when, number))

    def _rest(self, number: int, since: float) -> None:
        entry = self._entries[number]
        entry.rests = True
        own = self._by_peer[entry.mailbox.opener]
        own.remove(number)
        if not own:
            del self._by_peer[entry.mailbox.opener]
        self._by_source[entry.source] -= 1
        if not self._by_source[entry.source]:
            del self._by_source[entry.source]
        self._until(number, since + REST)

    def _sweep(self) -> float:
        """End what has had its time; returns what time it is."""
        now = self._clock()
        while self._ends and self._ends[0][0] <= now:
            when, number = heapq.heappop(self._ends)
            entry = self._entries.get(number)
            if entry is None:
                continue
            if entry.ends > when:
                # It was prolonged since. Where it was cut short, there is a time of its own for that.
                heapq.heappush(self._ends, (entry.ends, number))
            elif entry.rests:
                del self._entries[number]
            else:
                self._rest(number, entry.ends)
        return now
