"""Two engines in memory, joined by a link that delays and loses, on a clock that the test moves."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quice import TransportConfig, _native

ALPN = b"test/1"
CLIENT_SEED = bytes(range(32))
SERVER_SEED = bytes(range(32, 64))
# One way. Long enough for full windows to be in flight, as the link itself has no bandwidth limit.
DELAY = 0.01

E = TypeVar("E", bound=_native.Event)


def public_key(seed: bytes) -> bytes:
    """The Ed25519 public key of a seed."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


class Side:
    """One engine, its address on the link and the events it reported."""

    def __init__(self, engine: _native.Engine, host: str) -> None:
        self.engine = engine
        self.address = (host, 4433)
        self.events: list[_native.Event] = []
        self.due: float | None = None
        self.sent = 0

    def seen(self, kind: type[E]) -> list[E]:
        """The events of this kind so far, oldest first."""
        return [event for event in self.events if isinstance(event, kind)]

    def take(self, kind: type[E]) -> list[E]:
        """Like `seen`, and forget them."""
        taken = self.seen(kind)
        self.events = [event for event in self.events if not isinstance(event, kind)]
        return taken


class Pair:
    """A client and a server, and the datagrams between them.

    `loses(sender, data)` is asked about each datagram when it is sent. Nothing here reads a clock: `now`
    moves from one instant at which something happens to the next.
    """

    def __init__(
        self,
        config: TransportConfig | None = None,
        *,
        server_config: TransportConfig | None = None,
        alpns: tuple[bytes, ...] = (ALPN,),
        delay: float = DELAY,
        seeds: tuple[bytes, bytes] | tuple[None, None] = (None, None),
    ) -> None:
        settings = config or TransportConfig()
        raw_key = _native.Credentials.raw_key
        self.client = Side(
            _native.Engine(raw_key(CLIENT_SEED), [], settings, sockets=False, seed=seeds[0]),
            "192.0.2.1",
        )
        self.server = Side(
            _native.Engine(raw_key(SERVER_SEED), list(alpns), server_config or settings, sockets=False, seed=seeds[1]),
            "192.0.2.2",
        )
        self.now = 0.0
        self.delay = delay
        self.loses: Callable[[Side, bytes], bool] = lambda _sender, _data: False
        # What was sent to an address that nobody here has, such as an answer to a forged source.
        self.astray: list[tuple[bytes, tuple[str, int]]] = []
        self._flight: list[tuple[float, int, Side, bytes]] = []
        self._order = itertools.count()

    def connect(self, *, alpn: bytes = ALPN, peer: bytes | None = None) -> _native.Connection:
        """Start a handshake with the server, or with the holder of `peer` at the server's address."""
        return self.client.engine.connect(
            self.server.address, [alpn], peer=public_key(SERVER_SEED) if peer is None else peer
        )

    def connected(self) -> tuple[_native.Connection, _native.Connection]:
        """A connection, as the client and as the server see it."""
        near = self.connect()
        self.drive(lambda: bool(self.client.seen(_native.Event.Connected)))
        self.drive(lambda: bool(self.server.seen(_native.Event.Connected)))
        (accepted,) = self.server.seen(_native.Event.Connected)
        return near, self.server.engine.connection(accepted.connection)

    def drive(self, done: Callable[[], bool], *, within: float = 30.0) -> None:
        """Move from instant to instant until `done`, which may act on the engines, says so.

        Fails if nothing more happens, or nothing within `within` virtual seconds.
        """
        deadline = self.now + within
        while not done():
            self._pump()
            when = self._next_instant()
            if when is None:
                assert done(), f"nothing more happens after {self.now} s"
                return
            assert when <= deadline, f"not within {within} virtual seconds"
            self._move_to(when)

    def advance(self, seconds: float) -> None:
        """Let this much time pass, with everything that happens in it."""
        end = self.now + seconds
        self._pump()
        while (when := self._next_instant()) is not None and when <= end:
            self._move_to(when)
            self._pump()
        self.now = end
        self._pump()

    def _sides(self) -> Iterator[Side]:
        yield self.client
        yield self.server

    def _pump(self) -> None:
        for side, other in ((self.client, self.server), (self.server, self.client)):
            events, side.due, more, blocked = side.engine.pump(self.now)
            assert not more
            assert not blocked
            side.events += events
            for data, _source, destination in side.engine.transmits():
                side.sent += 1
                if destination != other.address:
                    self.astray.append((data, destination))
                elif not self.loses(side, data):
                    heapq.heappush(self._flight, (self.now + self.delay, next(self._order), other, data))

    def _next_instant(self) -> float | None:
        times = [side.due for side in self._sides() if side.due is not None]
        if self._flight:
            times.append(self._flight[0][0])
        return max(min(times), self.now) if times else None

    def _move_to(self, when: float) -> None:
        self.now = when
        while self._flight and self._flight[0][0] <= when:
            _, _, side, data = heapq.heappop(self._flight)
            sender = self.client if side is self.server else self.server
            side.engine.receive(data, sender.address, side.address[0], when)
