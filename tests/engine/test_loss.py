"""Loss, bursts of it, and readers that do not read: nothing is lost, and memory has its bounds."""

from __future__ import annotations

import random

import pytest

from quice import TransportConfig
from quice._native import Event
from tests.engine.flow import Flow
from tests.engine.pair import Pair, Side

MIB = 1 << 20
SMALL = 64 * MIB
LARGE = 1 << 30
# What packets and frames take beside the bytes of a stream, and the acknowledgements of the other direction.
OVERHEAD = 1.06


def assert_alive(pair: Pair) -> None:
    assert not pair.client.seen(Event.Lost)
    assert not pair.server.seen(Event.Lost)


def lose_at_random(pair: Pair, rate: float, seed: int) -> None:
    chance = random.Random(seed)
    pair.loses = lambda _sender, _data: chance.random() < rate


class Burst:
    """Loses so many packets of the client in a row, once it has sent `after`."""

    def __init__(self, pair: Pair, *, after: int, count: int) -> None:
        self.lost = 0
        self._first = after
        self._count = count
        self._client = pair.client
        pair.loses = self

    def __call__(self, sender: Side, _data: bytes) -> bool:
        if sender is not self._client or sender.sent < self._first or self.lost == self._count:
            return False
        self.lost += 1
        return True


@pytest.mark.parametrize("size", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)])
def test_five_percent_random_loss_ends_no_connection(size: int) -> None:
    pair = Pair(TransportConfig(stream_window=16 * MIB))
    near, far = pair.connected()
    lose_at_random(pair, 0.05, seed=5)
    flow = Flow(pair, near, far, size)
    flow.run(within=100_000.0)
    flow.check()
    assert_alive(pair)
    # All that is lost was lost by the link: nothing is taken for lost that is only late.
    assert near.stats()["lost_packets"] == pytest.approx(0.05 * pair.client.sent, rel=0.1)


@pytest.mark.parametrize("size", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)])
def test_a_burst_of_500_lost_packets_with_a_full_window_behind_it_ends_no_connection(size: int) -> None:
    pair = Pair(TransportConfig(stream_window=16 * MIB))
    near, far = pair.connected()
    # In slow start without loss, a whole window is in flight by then.
    burst = Burst(pair, after=24_000, count=500)
    flow = Flow(pair, near, far, size)
    most_behind_the_gap = 0

    def done() -> bool:
        nonlocal most_behind_the_gap
        before = flow.read
        flow.push()
        flow.pull()
        if burst.lost and flow.read == before:
            ahead = far.stats()["received_bytes"] - flow.read
            most_behind_the_gap = max(most_behind_the_gap, ahead)
        return flow.ended

    pair.drive(done, within=1000.0)
    flow.check()
    assert_alive(pair)
    assert burst.lost == 500
    assert near.stats()["lost_packets"] >= 500
    # Over a thousand chunks wait behind the gap: more than noq itself holds in one stream.
    assert most_behind_the_gap > 2_900_000


def test_many_gaps_at_once_end_no_connection() -> None:
    pair = Pair(TransportConfig(stream_window=16 * MIB))
    near, far = pair.connected()
    # Every other packet, while a whole window is in flight.
    lost = 0

    def loses(sender: Side, _data: bytes) -> bool:
        nonlocal lost
        if sender is pair.client and 24_000 <= sender.sent < 30_000 and sender.sent % 2:
            lost += 1
            return True
        return False

    pair.loses = loses
    flow = Flow(pair, near, far, SMALL)
    flow.run(within=1000.0)
    flow.check()
    assert_alive(pair)
    assert lost == 3000


def test_reordered_and_repeated_packets_change_nothing() -> None:
    pair = Pair()
    near, far = pair.connected()
    chance = random.Random(7)
    delayed: list[tuple[Side, bytes]] = []

    def loses(sender: Side, data: bytes) -> bool:
        if chance.random() < 0.1:
            delayed.append((sender, data))
        return chance.random() < 0.02

    pair.loses = loses
    flow = Flow(pair, near, far, 8 * MIB)

    def done() -> bool:
        while len(delayed) > 20:
            sender, data = delayed.pop(chance.randrange(len(delayed)))
            receiver = pair.server if sender is pair.client else pair.client
            receiver.engine.receive(data, sender.address, receiver.address[0], pair.now)
        flow.push()
        flow.pull()
        return flow.ended

    pair.drive(done, within=1000.0)
    flow.check()
    assert_alive(pair)


def test_a_reader_that_does_not_read_bounds_what_is_sent_and_later_gets_everything() -> None:
    config = TransportConfig(stream_window=16 * MIB, connection_window=8 * MIB, send_window=4 * MIB)
    pair = Pair(config)
    near, far = pair.connected()
    flow = Flow(pair, near, far, SMALL)
    for _ in range(100):
        flow.push()
        pair.advance(0.1)
    assert_alive(pair)
    assert far.stats()["received_bytes"] <= 8 * MIB * OVERHEAD
    assert flow.written <= (8 + 4) * MIB
    # And not by much less than is allowed: the window serves to keep the link full.
    assert far.stats()["received_bytes"] >= 4 * MIB
    flow.run(within=100.0)
    flow.check()


def test_a_slow_reader_never_has_more_than_the_window_before_it() -> None:
    window = 2 * MIB
    pair = Pair(TransportConfig(connection_window=window))
    near, far = pair.connected()
    lose_at_random(pair, 0.01, seed=11)
    flow = Flow(pair, near, far, 16 * MIB)
    while not flow.ended:
        flow.push()
        flow.pull(64 << 10)
        pair.advance(0.01)
        # Lost packets are sent again, and what came twice counts here as well.
        assert far.stats()["received_bytes"] - flow.read <= window + (OVERHEAD - 1) * flow.size
    flow.check()
    assert_alive(pair)


def test_many_streams_nobody_reads_share_the_connections_window() -> None:
    window = 4 * MIB
    pair = Pair(TransportConfig(stream_window=2 * MIB, connection_window=window))
    near, far = pair.connected()
    flows = [Flow(pair, near, far, 2 * MIB) for _ in range(32)]
    for _ in range(50):
        for flow in flows:
            flow.push()
        pair.advance(0.1)
    assert far.stats()["received_bytes"] <= window * OVERHEAD

    def done() -> bool:
        for flow in flows:
            flow.push()
            flow.pull()
        return all(flow.ended for flow in flows)

    pair.drive(done, within=100.0)
    for flow in flows:
        flow.check()


def test_a_stream_nobody_reads_leaves_room_for_the_others() -> None:
    # RFC 9000 §4.1: the limit on each stream keeps one from taking the whole of the connection's.
    pair = Pair(TransportConfig(stream_window=MIB, connection_window=8 * MIB))
    near, far = pair.connected()
    ignored = Flow(pair, near, far, 32 * MIB)
    for _ in range(50):
        ignored.push()
        pair.advance(0.1)
    wanted = Flow(pair, near, far, 4 * MIB)
    wanted.run(within=10.0)
    wanted.check()
    assert far.stats()["received_bytes"] <= (MIB + wanted.size) * OVERHEAD


def test_a_stream_whose_reader_stops_keeps_to_its_window_from_there() -> None:
    window = MIB
    pair = Pair(TransportConfig(stream_window=window, connection_window=8 * MIB))
    near, far = pair.connected()
    flow = Flow(pair, near, far, 32 * MIB)

    def some_read() -> bool:
        flow.push()
        flow.pull(64 << 10)
        return flow.read >= 4 * MIB

    pair.drive(some_read)
    for _ in range(50):
        flow.push()
        pair.advance(0.1)
    # RFC 9000 §4.1: so much more than was read, and no chunk more.
    assert flow.written <= flow.read + window + 1500
    assert flow.written >= flow.read + window / 2
    flow.run(within=100.0)
    flow.check()


def test_packets_that_all_arrive_at_once_end_no_connection() -> None:
    # More than noq holds of one stream, in one batch: as many as a burst on two sockets can bring.
    pair = Pair(TransportConfig(stream_window=16 * MIB))
    near, far = pair.connected()
    flow = Flow(pair, near, far, SMALL)
    jam: list[bytes] = []
    jammed = False

    def loses(sender: Side, data: bytes) -> bool:
        if sender is pair.client and pair.client.sent > 8_000 and not jammed:
            jam.append(data)
            return True
        return False

    def done() -> bool:
        nonlocal jammed
        flow.push()
        flow.pull()
        if len(jam) >= 4096 and not jammed:
            jammed = True
            for data in jam:
                pair.server.engine.receive(data, pair.client.address, pair.server.address[0], pair.now)
        return flow.ended

    pair.loses = loses
    pair.drive(done, within=1000.0)
    assert jammed
    flow.check()
    assert_alive(pair)


@pytest.mark.parametrize("how", ["reset", "stop"])
def test_a_stream_given_up_with_bytes_unread_gives_its_window_back(how: str) -> None:
    pair = Pair(TransportConfig(stream_window=4 * MIB, connection_window=4 * MIB))
    near, far = pair.connected()
    for _ in range(8):
        given_up = Flow(pair, near, far, 16 * MIB)
        for _ in range(10):
            given_up.push()
            pair.advance(0.05)
        if how == "reset":
            near.reset(given_up.stream, 1)
        else:
            far.stop(given_up.stream, 1)
        pair.advance(1.0)
    flow = Flow(pair, near, far, 16 * MIB)
    flow.run(within=10.0)
    flow.check()
    assert_alive(pair)


def test_a_link_that_is_cut_and_comes_back_within_the_idle_timeout_loses_nothing() -> None:
    pair = Pair(TransportConfig(idle_timeout=10.0))
    near, far = pair.connected()
    flow = Flow(pair, near, far, 32 * MIB)
    cut = (pair.now + 0.05, pair.now + 5.0)
    pair.loses = lambda _sender, _data: cut[0] <= pair.now < cut[1]
    flow.run(within=60.0)
    assert pair.now > cut[1]
    flow.check()
    assert_alive(pair)
