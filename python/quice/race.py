"""The race for QUIC on the candidate pair that lets it through first, in the spirit of RFC 8305.

The handshake does not wait for the connectivity checks, nor for a nomination: as soon as candidates are known, its
first packets go out on the most promising pairs, and then on each pair that a check has found to work. What arrives
first wins; the engine ends the others before the peer takes any of them for a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from quice import _native
from quice.connection import Connection
from quice.errors import HandshakeError, PeerClosedError, ProtocolError
from quice.ice import CandidateKind, CandidatePair
from quice.wire import Address

_EARLY = 4
"""Attempts on pairs that nothing is known of: one of each kind is enough, and a peer can make us send no more than
the packets of so many handshakes to addresses that it names."""
_EARLY_RELAYED = 2
"""As many more through relays: these let in whom they were told of, and so work where nothing else does."""
_ATTEMPTS = 12
"""Attempts in all, those on pairs that work included."""
_PACE = 0.005
"""Seconds between two attempts (RFC 8445 §14.2 allows no less between two checks): of pairs that are equally fast, the
one with the higher priority wins."""
_GRACE = 0.03
"""Seconds that an attempt already on its way has, once a check has found that its pair works, before another is made:
its first packet may have come too early for the peer's NAT, and be repeated late."""

Kind = tuple[CandidateKind, CandidateKind, bool]
Attempt = Callable[[CandidatePair], Connection]
"""Begins a handshake on a pair."""


class Race:
    """The attempts of one session, until one is established or `close` is called."""

    def __init__(
        self,
        attempt: Attempt,
        won: Callable[[Connection, CandidatePair], None],
        lost: Callable[[Exception], None],
    ) -> None:
        """`won` is told of the attempt that was established first, `lost` of a reason why none will be."""
        self._attempt = attempt
        self._won = won
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._attempts: list[tuple[Connection, CandidatePair]] = []
        self._tried: dict[Kind, CandidatePair] = {}
        self._pairs: tuple[CandidatePair, ...] = ()
        self._heard: list[Address] = []
        self._timers: list[asyncio.TimerHandle] = []
        self._next_slot = self._loop.time()
        self._over = False

    def on_pairs(self, pairs: Iterable[CandidatePair]) -> None:
        """There are new pairs, the best first: try the best of each kind."""
        self._pairs = tuple(pairs)
        for pair in self._pairs:
            kind = pair.local.kind, pair.remote.kind, ":" in pair.remote.address.host
            alike = [tried for tried in self._tried.values() if bool(tried.relays) is bool(pair.relays)]
            if kind not in self._tried and len(alike) < (_EARLY_RELAYED if pair.relays else _EARLY):
                self._tried[kind] = pair
                self._begin_soon(pair)

    def on_heard(self, remote: Address) -> None:
        """Something has come from this address of the peer's, so its NAT lets our answer in: what was sent before may
        have come too early."""
        if remote in self._heard or len(self._heard) >= _EARLY:
            return
        self._heard.append(remote)
        for pair in self._pairs:
            if pair.remote.address == remote:
                self._timers.append(self._loop.call_later(_PACE, self._begin_soon, pair))
                return

    def on_valid(self, pair: CandidatePair) -> None:
        """A check of this pair was answered."""
        if self._has_tried(pair):
            self._timers.append(self._loop.call_later(_GRACE, self._begin_soon, pair))
        else:
            self._begin_soon(pair)

    def close(self, won: Connection | None = None) -> None:
        """End all attempts but the one that has won."""
        self._over = True
        for timer in self._timers:
            timer.cancel()
        for connection, _ in self._attempts:
            if connection is not won:
                connection.close()

    def _has_tried(self, pair: CandidatePair) -> bool:
        return any(tried is pair for _, tried in self._attempts)

    def _begin_soon(self, pair: CandidatePair) -> None:
        now = self._loop.time()
        when = max(now, self._next_slot)
        self._next_slot = when + _PACE
        if when == now:
            self._begin(pair)
        else:
            self._timers.append(self._loop.call_at(when, self._begin, pair))

    def _begin(self, pair: CandidatePair) -> None:
        if self._over or len(self._attempts) >= _ATTEMPTS:
            return
        try:
            connection = self._attempt(pair)
        except (_native.RaceWon, HandshakeError):
            # Too late, or an address that nothing can be sent to.
            return
        self._attempts.append((connection, pair))
        connection._established.add_done_callback(lambda established: self._on_end(connection, pair, established))

    def _on_end(self, connection: Connection, pair: CandidatePair, established: asyncio.Future[None]) -> None:
        if self._over or established.cancelled():
            return
        error = established.exception()
        if error is None:
            self._over = True
            self._won(connection, pair)
        elif pair.is_valid and isinstance(error, PeerClosedError | ProtocolError):
            # Checks have shown that it is the peer who is there, and whose answer this was.
            self._over = True
            self._lost(error)
