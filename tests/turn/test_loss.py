"""A client and a server between which datagrams are lost, late, doubled and out of order."""

from __future__ import annotations

import heapq
import itertools
import random

import pytest

from quice.turn import Allocated, Bound, Client, Event, Lost, PermissionRefused, Unbound
from quice.wire import Address
from tests.turn.relay import LOCAL, PEER, SERVER, USER, Relay

PERMITTED = "198.51.100.50"
HOUR = 3600.0


class Weather:
    """The way between a client and its server."""

    def __init__(self, seed: int, *, loss: float) -> None:
        self.rng = random.Random(seed)
        self.loss = loss
        self.relay = Relay()
        self.now = 0.0
        self.told: list[Event] = []
        self._order = itertools.count()
        self._flying: list[tuple[float, int, bool, bytes]] = []
        self.client = Client(SERVER, LOCAL, USER, random.Random(seed), 0.0)

    def run(self, seconds: float) -> None:
        """Let that much time pass."""
        end = self.now + seconds
        while True:
            for transmit in self.client.transmits():
                self._send(True, transmit.data)
            self.told += self.client.events()
            times = [self._flying[0][0]] if self._flying else []
            if (due := self.client.timeout()) is not None:
                times.append(due)
            if not times or min(times) > end:
                break
            self.now = max(self.now, min(times))
            self._arrive()
            self.client.handle_timeout(self.now)
        self.now = end

    def _send(self, to_server: bool, data: bytes) -> None:
        for _ in range(1 + (self.rng.random() < 0.1)):
            if self.rng.random() >= self.loss:
                arrival = self.now + 0.02 + self.rng.random() * 0.03
                heapq.heappush(self._flying, (arrival, next(self._order), to_server, data))

    def _arrive(self) -> None:
        while self._flying and self._flying[0][0] <= self.now:
            _, _, to_server, data = heapq.heappop(self._flying)
            if not to_server:
                self.client.receive(data, SERVER, LOCAL, self.now)
            elif (answer := self.relay.take(data, self.now)) is not None:
                self._send(False, answer)


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.15])
@pytest.mark.parametrize("seed", range(10))
def test_an_allocation_with_all_that_belongs_to_it_outlives_bad_weather(seed: int, loss: float) -> None:
    weather = Weather(seed, loss=loss)
    channel = weather.client.bind(PEER, 0.0)
    weather.client.permit([PERMITTED], 0.0)
    weather.run(10.0)
    assert {type(event) for event in weather.told} == {Allocated, Bound}
    assert len(weather.told) == 2
    for hour in range(4):
        weather.relay.nonce = b"nonce %d" % hour
        weather.run(HOUR)
        assert weather.client.bind(PEER, weather.now) == channel
        assert weather.relay.channels[channel] > (PEER, weather.now)
        assert weather.relay.permitted[PEER.host] > weather.now
        assert weather.relay.permitted[PERMITTED] > weather.now
    assert len(weather.told) == 2
    weather.client.close(weather.now)
    weather.run(5.0)
    assert not weather.relay.allocated
    assert weather.client.is_over


@pytest.mark.parametrize("seed", range(20))
def test_a_silence_of_five_seconds_is_outlived_at_any_time(seed: int) -> None:
    weather = Weather(seed, loss=0.0)
    weather.client.bind(PEER, 0.0)
    weather.run(1.0 + weather.rng.random() * 600)
    weather.relay.silent = True
    weather.run(5.0)
    weather.relay.silent = False
    weather.run(HOUR)
    assert {type(event) for event in weather.told} == {Allocated, Bound}
    assert weather.client.allocation is not None


@pytest.mark.parametrize("seed", range(20))
def test_a_server_that_has_gone_for_good_is_told_to_be_lost_once_and_nothing_goes_on(seed: int) -> None:
    weather = Weather(seed, loss=0.05)
    weather.client.bind(PEER, 0.0)
    weather.run(10.0 + weather.rng.random() * 600)
    weather.relay.silent = True
    weather.run(60.0)
    assert sum(isinstance(event, Lost) for event in weather.told) == 1
    assert not any(isinstance(event, (Unbound, PermissionRefused)) for event in weather.told)
    assert weather.client.timeout() is None
    assert not list(weather.client.transmits())


def test_many_peers_are_bound_at_once_and_all_kept() -> None:
    weather = Weather(1, loss=0.05)
    peers = [Address(f"198.51.100.{number}", 6000) for number in range(1, 101)]
    weather.run(1.0)
    for peer in peers:
        weather.client.bind(peer, weather.now)
    weather.run(HOUR)
    assert sum(isinstance(event, Bound) for event in weather.told) == 100
    assert all(expires > weather.now for _, expires in weather.relay.channels.values())
