"""A peer that means no good: it has a key like any other, and says what it likes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from quice import Endpoint
from quice.errors import ConnectError
from quice.ice import Candidate, CandidateKind
from quice.ice.candidate import priority
from quice.identity import Identity, PeerId
from quice.signal.messages import VERSION, Establish, Offer, Restart
from quice.signal.queues import QueueSignalling, signalling_pair
from quice.wire import Address

ALPN = "target/1"
PWD = "p" * 22
# RFC 8839 §5.4: the longest that there may be makes the longest checks.
LONG_UFRAG = "u" * 256
PACING = 1
"""Milliseconds between two checks, which is faster than anybody checks."""


def named(addresses: Sequence[Address], kind: CandidateKind = CandidateKind.HOST) -> tuple[Candidate, ...]:
    """Candidates at these addresses, each of a foundation of its own, so that none waits for another."""
    return tuple(
        Candidate(kind=kind, address=address, priority=priority(kind, 65535 - number), foundation=f"{number:x}")
        for number, address in enumerate(addresses)
    )


def offer(addresses: Sequence[Address], **changes: Any) -> Offer:
    """An offer of who is at these addresses, it says."""
    values: dict[str, Any] = {"ufrag": LONG_UFRAG, "pwd": PWD, "alpn": ALPN, "candidates": named(addresses)}
    return Offer(version=VERSION, pacing=PACING, **values | changes)


def restart(addresses: Sequence[Address], number: int) -> Restart:
    """A restart, the one of this number, of a connection with who is at these addresses, it says."""
    ufrag = f"{number:08}" + "x" * 200
    candidates = named(addresses)
    return Restart(version=VERSION, ufrag=ufrag, pwd=PWD, candidates=candidates, continues=bytes(8), pacing=PACING)


def lesser_than(peer: PeerId) -> Identity:
    """Who has the lesser key: of two that open simultaneously, the other one makes the connection that counts."""
    return next(each for each in map(_identity, range(256)) if each.peer.key < peer.key)


def _identity(number: int) -> Identity:
    return Identity(bytes([number]) * 32)


class Caller:
    """Offers one session after another to an endpoint, as fast as it takes them, over a channel of its own."""

    def __init__(self, endpoint: Endpoint, peer: PeerId, at_once: int = 64) -> None:
        self._endpoint = endpoint
        self._peer = peer
        self._at_once = at_once
        self.offers = 0

    async def call(self, addresses: Sequence[Address], **changes: Any) -> QueueSignalling:
        """Offer one session. Returns this end of its signalling; the other goes on by itself."""
        ours, theirs = signalling_pair()
        await ours.send(offer(addresses, **changes))
        self.offers += 1
        self._task = asyncio.create_task(self._respond(theirs))
        return ours

    async def call_for(self, seconds: float, addresses: Sequence[Address], establish: Establish) -> None:
        """Offer sessions for so long, always as many as may be at once."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        ongoing: set[asyncio.Task[None]] = set()
        while loop.time() < end:
            while len(ongoing) < self._at_once:
                await self.call(addresses, establish=establish)
                ongoing.add(self._task)
                self._task.add_done_callback(ongoing.discard)
            await asyncio.sleep(0.2)

    async def _respond(self, signalling: QueueSignalling) -> None:
        with contextlib.suppress(ConnectError):
            await self._endpoint.respond(self._peer, signalling)
