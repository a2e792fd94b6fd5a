"""Our client and our server, the state machines alone, hours of bad weather between them."""

from __future__ import annotations

import heapq
import ipaddress
import itertools
import random

import pytest

from quice.turn import AddressFamilies, Allocated, Bound, Client, Event, Lost, Redirected, time_limited
from quice.turn.orders import BindChannel, CloseFamily, Delete, FiveTuple, Forbid, Open, Permit, UnbindChannel
from quice.turn.policy import PeerPolicy
from quice.turn.server import Limits, TurnServer
from quice.wire import Address
from tests.turn.relay import LOCAL, MAPPED, PEER, RELAYED, RELAYED6, SERVER

HOUR = 3600.0
SECRET = "shared"
FAR_PEER = Address("203.0.113.50", 6000)
HERE = FiveTuple(MAPPED, SERVER)


class Pair:
    """A client, a server, and the way between them. `channels` and `permitted`: what the server's data path knows."""

    def __init__(self, seed: int, loss: float) -> None:
        self.now = 0.0
        self.told: list[Event] = []
        self.channels: set[int] = set()
        self.permitted: set[str] = set()
        self.families_closed = 0
        self._rng = random.Random(seed)
        self._loss = loss
        self._order = itertools.count()
        self._flying: list[tuple[float, int, bool, bytes]] = []
        policy = PeerPolicy([ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("203.0.113.0/24")])
        self.server = TurnServer(SECRET, policy, random.Random(seed), lambda: self.now, Limits())
        credentials = time_limited(SECRET, HOUR, "alice")
        rng = random.Random(seed + 1)
        self.client = Client(SERVER, LOCAL, credentials, rng, 0.0, families=AddressFamilies.BOTH)

    def run(self, seconds: float) -> None:
        """Let that much time pass."""
        end = self.now + seconds
        while True:
            self._carry_out()
            for data, *_ in self.client.transmits():
                self._send(True, data)
            for data, _ in self.server.transmits():
                self._send(False, data)
            self.told += self.client.events()
            dues = (self.client.timeout(), self.server.timeout(), self._flying[0][0] if self._flying else None)
            times = [time for time in dues if time is not None]
            if not times or min(times) > end:
                break
            self.now = max(self.now, min(times))
            while self._flying and self._flying[0][0] <= self.now:
                _, _, to_server, data = heapq.heappop(self._flying)
                if to_server:
                    self.server.receive(data, HERE, self.now)
                else:
                    self.client.receive(data, SERVER, LOCAL, self.now)
            self.client.handle_timeout(self.now)
            self.server.handle_timeout(self.now)
        self.now = end

    def _carry_out(self) -> None:
        for order in self.server.events():
            match order:
                case Open():
                    both = {1: RELAYED, 2: RELAYED6}
                    self.server.opened(order.allocation, {each: both[each] for each in order.families}, self.now)
                case Permit():
                    self.permitted.add(order.host)
                case Forbid():
                    self.permitted.discard(order.host)
                case BindChannel():
                    self.channels.add(order.number)
                case UnbindChannel():
                    self.channels.discard(order.number)
                case Delete():
                    self.channels.clear()
                    self.permitted.clear()
                case CloseFamily():
                    self.families_closed += 1

    def _send(self, to_server: bool, data: bytes) -> None:
        for _ in range(1 + (self._rng.random() < 0.1)):
            if self._rng.random() >= self._loss:
                arrival = self.now + 0.02 + self._rng.random() * 0.03
                heapq.heappush(self._flying, (arrival, next(self._order), to_server, data))


@pytest.mark.parametrize("loss", [0.0, 0.15])
@pytest.mark.parametrize("seed", range(8))
def test_allocation_channel_and_permission_are_kept_for_hours_and_released_in_the_end(seed: int, loss: float) -> None:
    pair = Pair(seed, loss)
    channel = pair.client.bind(PEER, 0.0)
    pair.client.permit([FAR_PEER], 0.0)
    pair.run(15.0)
    assert [event for event in pair.told if isinstance(event, Allocated)] == [
        Allocated((RELAYED, RELAYED6), MAPPED, 600.0)
    ]
    for _ in range(50):
        assert pair.channels == {channel}
        assert pair.permitted >= {PEER.host, FAR_PEER.host}
        assert len(pair.server) == 1
        assert not pair.families_closed
        pair.run(HOUR / 10)
    assert {type(event) for event in pair.told} == {Allocated, Bound}
    pair.client.close(pair.now)
    pair.run(5.0)
    assert pair.client.is_over
    assert len(pair.server) == 0
    assert not any(isinstance(event, (Lost, Redirected)) for event in pair.told)


def test_the_first_round_trip_of_a_second_client_binds_and_carries_data() -> None:
    first = Pair(1, 0.0)
    first.run(1.0)
    credentials = first.client.credentials
    other = FiveTuple(MAPPED._replace(port=40001), SERVER)
    client = Client(SERVER, LOCAL, credentials, random.Random(9), first.now)
    client.bind(PEER, first.now)
    first.channels.clear()
    for data, *_ in client.transmits():
        first.server.receive(data, other, first.now)
        first._carry_out()
    assert first.channels == {0x4000}
    for data, five_tuple in first.server.transmits():
        assert five_tuple == other
        client.receive(data, SERVER, LOCAL, first.now)
    assert [type(event) for event in client.events()] == [Allocated, Bound]
