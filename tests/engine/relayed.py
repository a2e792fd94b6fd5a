"""A pair with TURN servers between its sides, of which all but the relaying is left out: allocations are as the test
has made them, and channels are bound when it says so."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator

from quice import TransportConfig, _native
from tests.engine.pair import ALPN, SERVER_SEED, Pair, Side, public_key

Address = tuple[str, int]

PORT = 4433
CLIENT = ("192.0.2.1", PORT)
SERVER = ("192.0.2.2", PORT)


def channel_data(channel: int, data: bytes, *, padded: bool = False) -> bytes:
    """RFC 8656 §12.4."""
    padding = -len(data) % 4 if padded else 0
    return channel.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data + bytes(padding)


class Allocation:
    """One side's relayed address on a server, and its channels. `host` is what its engine knows it by."""

    def __init__(self, side: Side, server: Address, relayed: Address, *, stream: bool) -> None:
        self.side = side
        self.server = server
        self.relayed = relayed
        self.stream = stream
        self.host = side.engine.add_relay(server, local=side.address[0], stream=stream)
        self.channels: dict[Address, int] = {}
        # What was relayed to this side and from it, without the frames.
        self.received = 0
        self.sent = 0
        self._input = b""

    def bind(self, peer: Address, *, channel: int | None = None) -> int:
        """A channel to `peer`, known on both ends of it."""
        number = 0x4000 + len(self.channels) if channel is None else channel
        self.channels[peer] = number
        self.side.engine.bind_channel(self.host, peer, number)
        return number

    def unframed(self, data: bytes) -> Iterator[tuple[Address, bytes]]:
        """What this side sends to whom in these bytes."""
        peers = {number: peer for peer, number in self.channels.items()}
        self._input += data
        while len(self._input) >= 4:
            channel, length = (int.from_bytes(self._input[at : at + 2], "big") for at in (0, 2))
            size = 4 + length + (-length % 4 if self.stream else 0)
            assert self.stream or len(self._input) == size
            if len(self._input) < size:
                return
            content, self._input = self._input[4 : 4 + length], self._input[size:]
            if channel in peers:
                self.sent += 1
                yield peers[channel], content


class RelayedPair(Pair):
    """Two sides that reach each other directly, unless `cut`, and through allocations.

    A datagram takes `delay` to arrive, however often it is relayed. Bytes to a side over a stream arrive in pieces.
    """

    def __init__(self, config: TransportConfig | None = None, *, seed: int = 1) -> None:
        self.chance = random.Random(seed)
        super().__init__(config, seeds=(self.chance.randbytes(32), self.chance.randbytes(32)))
        for side, (host, port) in ((self.client, CLIENT), (self.server, SERVER)):
            side.engine.bind(host, port)
        self.cut = False
        self.allocations: list[Allocation] = []
        # What was to be sent, as (time, source, destination, data).
        self.wire: list[tuple[float, Address, Address, bytes]] = []
        self._arrivals: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = itertools.count()

    def allocate(self, side: Side, *, stream: bool = False) -> Allocation:
        """A relayed address for this side, on a server of its own."""
        index = len(self.allocations) + 1
        server, relayed = (f"203.0.113.{index}", 3478), (f"203.0.113.{index}", 50_000 + index)
        allocation = Allocation(side, server, relayed, stream=stream)
        self.allocations.append(allocation)
        return allocation

    def connected_by(self, local: str, remote: Address = SERVER) -> tuple[_native.Connection, _native.Connection]:
        """A connection from this host of the client, as the client and as the server see it, ready for more paths."""
        near = self.client.engine.connect(remote, [ALPN], peer=public_key(SERVER_SEED), local=local)
        self.drive(
            lambda: bool(self.client.seen(_native.Event.Connected) and self.server.seen(_native.Event.Connected))
        )
        self.advance(0.1)
        (accepted,) = self.server.seen(_native.Event.Connected)
        return near, self.server.engine.connection(accepted.connection)

    def path(self, near: _native.Connection, remote: Address, local: str, *, backup: bool = False) -> int:
        """One more path, validated on both sides."""
        path = near.open_path(remote, local, backup=backup)
        assert path is not None

        def opened(side: Side) -> bool:
            return any(event.path == path for event in side.seen(_native.Event.PathOpened))

        self.drive(lambda: opened(self.client) and opened(self.server), within=5.0)
        return path

    def _pump(self) -> None:
        for side in (self.client, self.server):
            events, side.due, _, _ = side.engine.pump(self.now)
            for event in events:
                if isinstance(event, _native.Event.RelayOutput):
                    self._relay(self._named(side, event.host), event.data)
                else:
                    side.events.append(event)
            for data, source, destination in side.engine.transmits():
                side.sent += 1
                self._send(side, (source or side.address[0], PORT), destination, data)

    def _named(self, side: Side, host: str) -> Allocation:
        # Another engine may call another relay the same.
        return next(allocation for allocation in self.allocations if (allocation.side, allocation.host) == (side, host))

    def _send(self, sender: Side, source: Address, destination: Address, data: bytes) -> None:
        self.wire.append((self.now, source, destination, data))
        if self.loses(sender, data):
            return
        for allocation in self.allocations:
            if destination == allocation.server and source == allocation.side.address:
                self._relay(allocation, data)
                return
        self._arrive(source, destination, data)

    def _relay(self, allocation: Allocation, data: bytes) -> None:
        for peer, content in allocation.unframed(data):
            self._arrive(allocation.relayed, peer, content)

    def _arrive(self, source: Address, destination: Address, data: bytes) -> None:
        for allocation in self.allocations:
            if destination == allocation.relayed:
                # RFC 8656 §11.3: without a channel or permission it is dropped.
                if source in allocation.channels:
                    allocation.received += 1
                    framed = channel_data(allocation.channels[source], data, padded=allocation.stream)
                    self._deliver(allocation.side, allocation.server, framed, allocation)
                return
        for side in (self.client, self.server):
            if destination == side.address and not (self.cut and source in (CLIENT, SERVER)):
                self._deliver(side, source, data)

    def _deliver(self, side: Side, source: Address, data: bytes, allocation: Allocation | None = None) -> None:
        def arrive(now: float) -> None:
            if allocation is None or not allocation.stream:
                side.engine.receive(data, source, side.address[0], now)
                return
            at = 0
            while at < len(data):
                size = self.chance.choice((1, 2, 3, 5, 700, 5000))
                side.engine.receive_stream(allocation.host, data[at : at + size], now)
                at += size

        heapq.heappush(self._arrivals, (self.now + self.delay, next(self._number), arrive))

    def _next_instant(self) -> float | None:
        times = [side.due for side in (self.client, self.server) if side.due is not None]
        times += [self._arrivals[0][0]] if self._arrivals else []
        return max(min(times), self.now) if times else None

    def _move_to(self, when: float) -> None:
        self.now = when
        while self._arrivals and self._arrivals[0][0] <= when:
            heapq.heappop(self._arrivals)[2](when)
