"""How a session's two sides come to their connection: one races for it, the other responds.

The race is for QUIC on the candidate pair that lets it through first, in the spirit of RFC 8305.

The handshake does not wait for the connectivity checks, nor for a nomination: as soon as candidates are known, its
first packets go out on the most promising pairs, and then on each pair that a check has found to work. What arrives
first wins; the engine ends the others before the peer takes any of them for a connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from quice import _native
from quice.connection import Connection
from quice.errors import ConnectTimeoutError, HandshakeError, PeerClosedError, ProtocolError
from quice.ice import CandidateKind, CandidatePair

_EARLY = 4
"""Attempts on pairs that nothing is known of: one of each kind is enough, and a peer can make us send no more than
the packets of so many handshakes to addresses that it names."""
_ATTEMPTS = 10
"""Attempts in all, those on pairs that work included."""
_PACE = 0.005
"""Seconds between two attempts (RFC 8445 §14.2 allows no less between two checks): of pairs that are equally fast, the
one with the higher priority wins."""
_GRACE = 0.03
"""Seconds that an attempt already on its way has, once a check has found that its pair works, before another is made:
its first packet may have come too early for the peer's NAT, and be repeated late."""

Kind = tuple[CandidateKind, CandidateKind, bool]


class Race:
    """The attempts of one session. The first to be established is `winner`."""

    def __init__(self, attempt: Callable[[CandidatePair], Connection]) -> None:
        """`attempt` begins a handshake on a pair."""
        self._attempt = attempt
        self._loop = asyncio.get_running_loop()
        self._attempts: list[tuple[Connection, CandidatePair]] = []
        self._tried: dict[Kind, CandidatePair] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self._next_slot = self._loop.time()
        self.winner: asyncio.Future[tuple[Connection, CandidatePair]] = self._loop.create_future()

    def on_pairs(self, pairs: Iterable[CandidatePair]) -> None:
        """There are new pairs, the best first: try the best of each kind."""
        for pair in pairs:
            kind = pair.local.kind, pair.remote.kind, ":" in pair.remote.address.host
            if kind not in self._tried and len(self._tried) < _EARLY:
                self._tried[kind] = pair
                self._begin_soon(pair)

    def on_valid(self, pair: CandidatePair) -> None:
        """A check of this pair was answered."""
        if any(tried is pair for _, tried in self._attempts):
            self._timers.append(self._loop.call_later(_GRACE, self._begin_soon, pair))
        else:
            self._begin_soon(pair)

    def on_selected(self, pair: CandidatePair) -> None:
        """The agents agree on a pair. By then it has its attempt."""

    def on_failed(self, error: Exception) -> None:
        """No pair works."""
        if not self.winner.done():
            self.winner.set_exception(error)

    def close(self) -> None:
        """End all attempts but the one that has won."""
        for timer in self._timers:
            timer.cancel()
        won = self.winner.result()[0] if self._is_won else None
        for connection, _ in self._attempts:
            if connection is not won:
                connection.close()
        if not self.winner.done():
            self.winner.cancel()

    @property
    def _is_won(self) -> bool:
        return self.winner.done() and not self.winner.cancelled() and self.winner.exception() is None

    def _begin_soon(self, pair: CandidatePair) -> None:
        now = self._loop.time()
        when = max(now, self._next_slot)
        self._next_slot = when + _PACE
        if when == now:
            self._begin(pair)
        else:
            self._timers.append(self._loop.call_at(when, self._begin, pair))

    def _begin(self, pair: CandidatePair) -> None:
        if self.winner.done() or len(self._attempts) >= _ATTEMPTS:
            return
        try:
            connection = self._attempt(pair)
        except (_native.RaceWon, HandshakeError):
            # Too late, or an address that nothing can be sent to.
            return
        self._attempts.append((connection, pair))
        connection._established.add_done_callback(lambda established: self._on_end(connection, pair, established))

    def _on_end(self, connection: Connection, pair: CandidatePair, established: asyncio.Future[None]) -> None:
        if self.winner.done() or established.cancelled():
            return
        error = established.exception()
        if error is None:
            self.winner.set_result((connection, pair))
        elif pair.is_valid and isinstance(error, PeerClosedError | ProtocolError):
            # Checks have shown that it is the peer who is there, and whose answer this was.
            self.winner.set_exception(error)


class Response:
    """Waits for the connection that the peer makes after its offer."""

    def __init__(self, patience: float) -> None:
        """`patience`: seconds that a handshake may take once the peer has chosen a pair."""
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self.began = self._loop.time()
        """When the offer came, on the loop's clock."""
        self._deadline: asyncio.TimerHandle | None = None
        self.connected: asyncio.Future[Connection] = self._loop.create_future()

    def on_pairs(self, pairs: Iterable[CandidatePair]) -> None:
        """The peer makes the connection: there is nothing to try here."""

    def on_valid(self, pair: CandidatePair) -> None:
        """Likewise."""

    def on_selected(self, pair: CandidatePair) -> None:
        """The peer has chosen: its handshake follows at once, or never."""
        if self._deadline is None:
            error = ConnectTimeoutError(self._patience, "no handshake followed")
            self._deadline = self._loop.call_later(self._patience, self.on_failed, error)

    def on_failed(self, error: Exception) -> None:
        """No pair works."""
        if not self.connected.done():
            self.connected.set_exception(error)

    def close(self) -> None:
        """Stop waiting."""
        if self._deadline is not None:
            self._deadline.cancel()
        self.connected.cancel()
