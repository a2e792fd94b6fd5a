"""A client and a server with several addresses each, and a link with a delay between any two of them."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

from quice import TransportConfig, _native
from tests.engine.pair import ALPN, CLIENT_SEED, SERVER_SEED, Pair, Side, public_key

PORT = 4433
# The hosts of a path are those with the same index.
CLIENT_HOSTS = ("192.0.2.1", "198.51.100.1", "2001:db8::1")
SERVER_HOSTS = ("192.0.2.2", "198.51.100.2", "2001:db8::2")

Link = tuple[str, str]


class MultihomedPair(Pair):
    """Like `Pair`, but a datagram arrives from where it was sent, at the address it was sent to.

    `cut` holds links, as (client host, server host), on which everything is lost without a word, and `mute` (source,
    destination) between which it is; `delays` has the links of another delay than the rest. `mapped` has the client's
    hosts that the server sees as others, as a NAT would have it. `stopped` are sides that do nothing, as a process that
    was stopped: what comes waits in their sockets. `strays` are the datagrams to addresses that nobody has, with their
    times. With `roams`, all hosts reach each other.
    """

    def __init__(
        self, config: TransportConfig | None = None, *, delay: float = 0.01, seed: int = 1, roams: bool = False
    ) -> None:
        chance = random.Random(seed)
        super().__init__(config, delay=delay, seeds=(chance.randbytes(32), chance.randbytes(32)))
        self.cut: set[Link] = set()
        self.mute: set[tuple[str, str]] = set()
        self.delays: dict[Link, float] = {}
        self.roams = roams
        self.mapped: dict[str, str] = {}
        self.stopped: list[Side] = []
        self._waiting: list[tuple[Side, bytes, str, str]] = []
        self.carried: dict[Link, int] = {}
        self.strays: list[tuple[float, Side, tuple[str, int]]] = []
        self._travelling: list[tuple[float, int, Side, bytes, str, str]] = []
        self._count = itertools.count()
        for side, hosts in ((self.client, CLIENT_HOSTS), (self.server, SERVER_HOSTS)):
            for host in hosts:
                side.engine.bind(host, PORT)

    def connect(self, *, alpn: bytes = ALPN, peer: bytes | None = None) -> _native.Connection:
        return self.client.engine.connect(
            (SERVER_HOSTS[0], PORT),
            [alpn],
            peer=public_key(SERVER_SEED) if peer is None else peer,
            local=CLIENT_HOSTS[0],
        )

    def connected(self) -> tuple[_native.Connection, _native.Connection]:
        """A connection on the first hosts, as the client and as the server see it, ready for more paths."""
        connections = super().connected()
        # The connection ids for them come after the handshake.
        self.advance(0.1)
        return connections

    def second_path(self, near: _native.Connection, *, index: int = 1, backup: bool = False) -> int:
        """A path between the hosts with this index, validated on both sides."""
        path = near.open_path((SERVER_HOSTS[index], PORT), CLIENT_HOSTS[index], backup=backup)
        assert path is not None
        self.drive(lambda: all(opened(side, path) for side in (self.client, self.server)), within=5.0)
        return path

    def resume(self, side: Side) -> None:
        """Let a side go on that was stopped."""
        self.stopped.remove(side)
        waiting, self._waiting = self._waiting, []
        for entry in waiting:
            self._arrive(*entry)

    def _pump(self) -> None:
        originals = {mapped: host for host, mapped in self.mapped.items()}
        for side, other in ((self.client, self.server), (self.server, self.client)):
            if side in self.stopped:
                continue
            events, side.due, _, _ = side.engine.pump(self.now)
            side.events += events
            own, theirs = (CLIENT_HOSTS, SERVER_HOSTS) if side is self.client else (SERVER_HOSTS, CLIENT_HOSTS)
            for data, source, (destination, port) in side.engine.transmits():
                side.sent += 1
                if side is self.server:
                    if destination in self.mapped:
                        continue
                    destination = originals.get(destination, destination)
                if destination not in theirs or port != PORT:
                    self.strays.append((self.now, side, (destination, port)))
                    continue
                # Who names no source leaves it to the system, which takes the address on the way there.
                source = own[theirs.index(destination)] if source is None else source
                link = (source, destination) if side is self.client else (destination, source)
                if link in self.cut or (source, destination) in self.mute or self.loses(side, data):
                    continue
                # There is no way between two networks.
                assert self.roams or CLIENT_HOSTS.index(link[0]) == SERVER_HOSTS.index(link[1])
                self.carried[link] = self.carried.get(link, 0) + len(data)
                arrival = self.now + self.delays.get(link, self.delay)
                entry = (arrival, next(self._count), other, data, source, destination)
                heapq.heappush(self._travelling, entry)

    def _next_instant(self) -> float | None:
        running = (side for side in (self.client, self.server) if side not in self.stopped)
        times = [side.due for side in running if side.due is not None]
        times += [self._travelling[0][0]] if self._travelling else []
        return max(min(times), self.now) if times else None

    def _move_to(self, when: float) -> None:
        self.now = when
        while self._travelling and self._travelling[0][0] <= when:
            _, _, side, data, source, destination = heapq.heappop(self._travelling)
            self._arrive(side, data, source, destination)

    def _arrive(self, side: Side, data: bytes, source: str, destination: str) -> None:
        if side in self.stopped:
            self._waiting.append((side, data, source, destination))
            return
        if side is self.server:
            source = self.mapped.get(source, source)
        side.engine.receive(data, (source, PORT), destination, self.now)


def link(index: int) -> Link:
    """The link between the hosts with this index."""
    return CLIENT_HOSTS[index], SERVER_HOSTS[index]


def opened(side: Side, path: int) -> bool:
    """Whether this side has been told that the path is open."""
    return any(event.path == path for event in side.seen(_native.Event.PathOpened))


def losing(rate: float, seed: int) -> Callable[[Side, bytes], bool]:
    """A link that loses at random."""
    chance = random.Random(seed)
    return lambda _side, _data: chance.random() < rate


__all__ = ["ALPN", "CLIENT_HOSTS", "CLIENT_SEED", "SERVER_HOSTS", "MultihomedPair", "link", "losing", "opened"]
