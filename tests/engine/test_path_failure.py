"""A path that stops passing data is left within a second; one that works is kept, and one that is idle left alone."""

from __future__ import annotations

import pytest

from quice import TransportConfig, _native
from quice._native import Event, PathLoss
from tests.engine.flow import Flow
from tests.engine.multihomed import CLIENT_HOSTS, SERVER_HOSTS, MultihomedPair, link, losing
from tests.engine.pair import Side

MIB = 1 << 20
BLOCK = bytes(MIB)
LIMIT = 1.0
"""Seconds within which data goes on over another path."""


def paths_of_two(rtt: float, *, seed: int = 1) -> tuple[MultihomedPair, _native.Connection, _native.Connection]:
    """A connection with a path in use and a backup, both of this round-trip time and settled."""
    pair = MultihomedPair(delay=rtt / 2, seed=seed)
    near, far = pair.connected()
    pair.advance(0.5)
    pair.second_path(near, backup=True)
    pair.advance(1.0)
    return pair, near, far


def cut(pair: MultihomedPair, direction: str, index: int = 0) -> None:
    """Lose without a word what goes up from the client, down to it, or both."""
    client, server = link(index)
    if direction in ("up", "both"):
        pair.mute.add((client, server))
    if direction in ("down", "both"):
        pair.mute.add((server, client))


def lost_paths(pair: MultihomedPair) -> list[tuple[int, PathLoss]]:
    """What the client was told."""
    return [(event.path, event.reason) for event in pair.client.seen(Event.PathLost)]


class Sending:
    """Bytes from one side to the other on a stream that never ends."""

    def __init__(
        self, pair: MultihomedPair, sender: _native.Connection, receiver: _native.Connection, at: Side
    ) -> None:
        stream = sender.open(unidirectional=True)
        assert stream is not None
        self.stream = stream
        self.received = 0
        self._sender, self._receiver, self._at = sender, receiver, at
        self._opened = False

    def send(self, count: int) -> int:
        """As many of so many bytes as there is room for."""
        return self._sender.write(self.stream, memoryview(BLOCK)[:count], 0)

    def receive(self) -> int:
        """How many bytes have come."""
        self._opened = self._opened or any(event.stream == self.stream for event in self._at.seen(Event.Opened))
        before = self.received
        while self._opened and (data := self._receiver.read(self.stream, MIB)):
            self.received += len(data)
        return self.received - before


@pytest.mark.parametrize("rtt", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("direction", ["up", "down", "both"])
@pytest.mark.parametrize("sender", ["client", "server"])
def test_a_transfer_goes_on_within_a_second(sender: str, direction: str, rtt: float) -> None:
    pair, near, far = paths_of_two(rtt)
    flow = Sending(pair, near, far, pair.server) if sender == "client" else Sending(pair, far, near, pair.client)
    start, cut_at = pair.now, pair.now + 0.5
    longest, last = 0.0, start

    def done() -> bool:
        nonlocal longest, last
        if pair.now >= cut_at and not pair.mute:
            cut(pair, direction)
        while flow.send(MIB) == MIB:
            pass
        if flow.receive():
            longest = max(longest, pair.now - last) if last > start else 0.0
            last = pair.now
        return pair.now >= cut_at + 2.0

    pair.drive(done, within=10.0)
    assert longest < LIMIT
    assert last > cut_at + 1.9
    assert lost_paths(pair) == [(0, PathLoss.TimedOut)]
    assert not pair.client.seen(Event.Lost)


@pytest.mark.parametrize("rate", [5, 10, 20])
def test_of_a_fast_transfer_only_what_was_lost_is_sent_again(rate: int) -> None:
    """Half of the megabytes that are on their way have arrived, and their acknowledgements have not. The other path,
    which has carried nothing yet, would need many round trips for them, before anything that the peer waits for."""
    pair, near, far = paths_of_two(0.1)
    flow = Sending(pair, far, near, pair.client)
    start, sent, longest, last = pair.now, 0, 0.0, pair.now
    while pair.now < start + 4.0:
        if pair.now >= start + 2.5 and not pair.mute:
            cut(pair, "both")
        sent += flow.send(int((pair.now - start) * rate * MIB) - sent)
        pair.advance(0.005)
        if flow.receive():
            longest = max(longest, pair.now - last) if sent > MIB else 0.0
            last = pair.now
    # The silence until it is given up, a round trip to ask, and the way.
    assert 0.5 < longest < 0.5 + 0.1 + 0.05 + 0.05
    assert lost_paths(pair) == [(0, PathLoss.TimedOut)]


def exchanges(pair: MultihomedPair, near: _native.Connection, far: _native.Connection, seconds: float) -> list[float]:
    """How long the answer to each small request takes, with one each 100 ms, and all of them answered."""
    up, down = Sending(pair, near, far, pair.server), Sending(pair, far, near, pair.client)
    end, due = pair.now + seconds, pair.now
    asked: list[float] = []
    took: list[float] = []
    while pair.now < end or len(took) < len(asked):
        assert pair.now < end + 10.0
        if due <= pair.now < end:
            up.send(100)
            asked.append(pair.now)
            due += 0.1
        down.send(up.receive())
        down.receive()
        while len(took) < down.received // 100:
            took.append(pair.now - asked[len(took)])
        pair.advance(0.005)
    return took


@pytest.mark.parametrize("rtt", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("direction", ["up", "down", "both"])
def test_small_requests_are_answered_within_a_second(direction: str, rtt: float) -> None:
    pair, near, far = paths_of_two(rtt)
    exchanges(pair, near, far, 1.0)
    cut(pair, direction)
    assert max(exchanges(pair, near, far, 2.0)) < LIMIT
    assert lost_paths(pair) == [(0, PathLoss.TimedOut)]


@pytest.mark.parametrize("rtt", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("direction", ["up", "down", "both"])
@pytest.mark.parametrize("asking", ["client", "server"])
def test_the_first_request_after_an_hour_arrives_within_a_second(asking: str, direction: str, rtt: float) -> None:
    pair, near, far = paths_of_two(rtt)
    pair.advance(3600.0)
    assert not lost_paths(pair)
    cut(pair, direction)
    took = exchange(pair, near, far, pair.server) if asking == "client" else exchange(pair, far, near, pair.client)
    assert took < LIMIT


def exchange(pair: MultihomedPair, asking: _native.Connection, asked: _native.Connection, at: Side) -> float:
    """How long a request takes to come to the side that is asked."""
    start = pair.now
    request = Sending(pair, asking, asked, at)
    request.send(100)
    pair.drive(lambda: request.receive() > 0, within=10.0)
    return pair.now - start


def test_an_idle_connection_says_next_to_nothing_on_its_paths() -> None:
    pair, near, far = paths_of_two(0.05)
    pair.second_path(near, index=2, backup=True)
    pair.advance(60.0)
    before = pair.client.sent + pair.server.sent
    pair.advance(3600.0)
    # On each path and from each side not much more than a ping and an answer in ten seconds, which is the keep-alive.
    assert pair.client.sent + pair.server.sent - before < 3 * 2 * 2 * 360 * 1.1
    assert [path["id"] for path in near.paths()] == [path["id"] for path in far.paths()] == [0, 1, 2]


def test_a_backup_is_kept_alive_while_another_path_is_busy() -> None:
    pair = MultihomedPair(TransportConfig(path_keep_alive=5.0))
    near, far = pair.connected()
    pair.second_path(near, backup=True)
    pair.advance(1.0)
    up = Sending(pair, near, far, pair.server)

    def busy(seconds: float) -> int:
        """The datagrams on the backup meanwhile."""
        pair.carried.clear()
        end = pair.now + seconds
        while pair.now < end:
            up.send(1000)
            up.receive()
            pair.advance(0.05)
        return pair.carried.get(link(1), 0)

    carried = busy(60.0)
    # A dozen pings of some forty bytes, answered.
    assert 12 * 30 < carried < 12 * 4 * 60
    cut(pair, "both", index=1)
    busy(7.0)
    assert lost_paths(pair) == [(1, PathLoss.TimedOut)]


def lossy_minute(loss: float, rtt: float, seed: int) -> int:
    """How many paths are given up in a minute of a transfer, and then half a minute of small requests."""
    pair, near, far = paths_of_two(rtt, seed=seed)
    pair.loses = losing(loss, seed)
    flow = Sending(pair, near, far, pair.server)
    end = pair.now + 60.0
    while pair.now < end:
        flow.send(5000)
        flow.receive()
        pair.advance(0.01)
    exchanges(pair, near, far, 30.0)
    return len(lost_paths(pair))


@pytest.mark.parametrize("rtt", [0.05, 0.2])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_little_loss_costs_no_path(seed: int, rtt: float) -> None:
    assert lossy_minute(0.05, rtt, seed) == 0


def test_much_loss_costs_a_path_rarely() -> None:
    assert sum(lossy_minute(0.2, 0.05, seed) for seed in range(5)) <= 1


def test_when_all_paths_were_silent_none_is_given_up_for_being_heard_later() -> None:
    pair, near, far = paths_of_two(0.05)
    pair.delays[link(1)] = 0.15
    exchanges(pair, near, far, 1.0)
    for index in (0, 1):
        cut(pair, "both", index)
    flow = Sending(pair, near, far, pair.server)
    flow.send(1000)
    pair.advance(5.0)
    pair.mute.clear()
    pair.drive(lambda: flow.receive() >= 0 and flow.received == 1000, within=5.0)
    pair.advance(5.0)
    assert not lost_paths(pair)
    assert [path["id"] for path in far.paths()] == [0, 1]


@pytest.mark.parametrize("second", [1, 2])
def test_two_paths_may_fail_at_once(second: int) -> None:
    pair, near, far = paths_of_two(0.05)
    pair.second_path(near, index=2, backup=True)
    exchanges(pair, near, far, 1.0)
    cut(pair, "both")
    cut(pair, "both", second)
    assert max(exchanges(pair, near, far, 2.0)) < 1.5
    assert sorted(path for path, _ in lost_paths(pair)) == [0, second]


def test_what_was_in_flight_on_a_failed_path_comes_over_the_other_once() -> None:
    pair, near, far = paths_of_two(0.05)
    flow = Flow(pair, near, far, 24 * MIB)
    for _ in range(20):
        flow.push()
        flow.pull()
        pair.advance(0.01)
    cut(pair, "both")
    flow.run(within=5.0)
    flow.check()
    (path,) = near.paths()
    assert path["id"] == 1
    assert path["lost_packets"] == 0
    assert (path["local"], path["remote"]) == ((CLIENT_HOSTS[1], 4433), (SERVER_HOSTS[1], 4433))
