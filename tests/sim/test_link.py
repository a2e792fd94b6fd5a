"""Links: what each kind of weather does to packets."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from quice.sim.link import Bursts, Conditions, Link, Pipe
from quice.sim.packet import Fate, Packet, Protocol
from quice.sim.schedule import Schedule
from quice.wire import Address
from tests.sim.clock import HeapClock

ALICE, BOB = Address("192.0.2.1", 1), Address("192.0.2.2", 2)
HEADERS = 28


class Wire:
    """One direction of a link, and what came out of it when."""

    def __init__(self, conditions: Conditions, seed: int = 1, *, instant: bool = False) -> None:
        self.clock = HeapClock()
        self.arrived: list[tuple[float, Packet]] = []
        self.fates: list[Fate] = []
        self.pipe = Pipe(
            "wire",
            conditions,
            Schedule(self.clock),
            random.Random(seed),
            lambda place, fate, packet: self.fates.append(fate),
            lambda packet: self.arrived.append((self.clock.time(), packet)),
            instant=instant,
        )

    def send(self, data: bytes = b"", protocol: Protocol = Protocol.UDP) -> None:
        self.pipe.carry(Packet(protocol, ALICE, BOB, data))

    def send_many(self, count: int, every: float = 0.001, size: int = 100) -> None:
        """Send packets whose data is their number."""
        for number in range(count):
            self.send(number.to_bytes(4, "big") + bytes(size - 4))
            self.clock.advance(every)
        self.clock.drain()

    @property
    def times(self) -> list[float]:
        return [time for time, _ in self.arrived]

    @property
    def numbers(self) -> list[int]:
        return [int.from_bytes(packet.data[:4], "big") for _, packet in self.arrived]


def test_a_packet_takes_the_delay() -> None:
    wire = Wire(Conditions(delay=0.025))
    wire.send()
    wire.clock.drain()
    assert wire.times == [0.025]


def test_an_instant_pipe_without_delay_delivers_before_it_returns() -> None:
    wire = Wire(Conditions(), instant=True)
    wire.send()
    assert len(wire.arrived) == 1


def test_jitter_spreads_arrivals_and_changes_no_order() -> None:
    wire = Wire(Conditions(delay=0.02, jitter=0.05))
    wire.send_many(1000)
    assert wire.numbers == list(range(1000))
    taken = [time - number * 0.001 for time, number in zip(wire.times, wire.numbers, strict=True)]
    assert all(0.02 <= each <= 0.07 + 1e-9 for each in taken)
    assert max(taken) - min(taken) > 0.03


def test_random_loss_loses_its_share() -> None:
    wire = Wire(Conditions(loss=0.2))
    wire.send_many(10_000)
    assert 1850 < wire.fates.count(Fate.LOST) < 2150
    assert len(wire.arrived) + wire.fates.count(Fate.LOST) == 10_000


def runs_of_missing(numbers: list[int]) -> list[int]:
    """How many packets are missing at each gap."""
    return [later - earlier - 1 for earlier, later in itertools.pairwise(numbers) if later - earlier > 1]


def test_bursts_lose_many_packets_in_a_row() -> None:
    wire = Wire(Conditions(bursts=Bursts(begin=0.01, end=0.1)))
    wire.send_many(50_000)
    runs = runs_of_missing(wire.numbers)
    assert 9 < sum(runs) / len(runs) < 11
    assert 0.08 < sum(runs) / 50_000 < 0.1


def test_a_bad_spell_may_let_some_packets_through() -> None:
    wire = Wire(Conditions(bursts=Bursts(begin=0.01, end=0.1, loss=0.5)))
    wire.send_many(50_000)
    assert 0.04 < wire.fates.count(Fate.LOST) / 50_000 < 0.05


def test_a_burst_is_over_when_nothing_was_sent_for_a_while() -> None:
    wire = Wire(Conditions(bursts=Bursts(begin=0.01, end=0.01, memory=0.5)))
    wire.send_many(10_000, every=0.6)
    assert 0.005 < wire.fates.count(Fate.LOST) / 10_000 < 0.015


def test_reordering_lets_packets_be_overtaken() -> None:
    wire = Wire(Conditions(delay=0.02, reordering=0.1, held_back=0.0055))
    wire.send_many(1000)
    assert sorted(wire.numbers) == list(range(1000))
    late = [number for place, number in enumerate(wire.numbers) if place and wire.numbers[place - 1] > number]
    assert 60 < len(late) < 140


def test_duplication_delivers_packets_twice() -> None:
    wire = Wire(Conditions(duplication=0.1))
    wire.send_many(1000)
    assert len(wire.arrived) == 1000 + wire.fates.count(Fate.DUPLICATED)
    assert 70 < wire.fates.count(Fate.DUPLICATED) < 130


def test_corruption_flips_one_to_three_bits() -> None:
    wire = Wire(Conditions(corruption=1.0))
    for _ in range(100):
        wire.send(bytes(50))
    wire.clock.drain()
    flipped = {int.from_bytes(packet.data, "big").bit_count() for _, packet in wire.arrived}
    assert flipped == {1, 2, 3}


def test_a_corrupted_tcp_segment_is_lost_to_its_checksum() -> None:
    wire = Wire(Conditions(corruption=1.0))
    wire.send(bytes(50), Protocol.TCP)
    wire.clock.drain()
    assert (wire.arrived, wire.fates) == ([], [Fate.CHECKSUM])


def test_a_datagram_without_data_has_nothing_to_corrupt() -> None:
    wire = Wire(Conditions(corruption=1.0))
    wire.send(b"")
    wire.clock.drain()
    assert len(wire.arrived) == 1


def test_a_rate_spaces_packets_by_their_size_on_the_wire() -> None:
    wire = Wire(Conditions(delay=0.1, rate=8000.0))
    for _ in range(3):
        wire.send(bytes(100 - HEADERS))
    wire.clock.drain()
    assert wire.times == pytest.approx([0.2, 0.3, 0.4])


def test_a_rate_leaves_packets_alone_that_come_slowly() -> None:
    wire = Wire(Conditions(rate=8000.0))
    wire.send_many(3, every=10.0, size=100 - HEADERS)
    assert wire.times == pytest.approx([0.1, 10.1, 20.1])


def test_a_full_queue_drops_what_comes() -> None:
    wire = Wire(Conditions(rate=8000.0, queue=1000))
    for _ in range(15):
        wire.send(bytes(100 - HEADERS))
    assert wire.fates == [Fate.QUEUE_FULL] * 5
    wire.clock.advance(0.1)
    wire.send(bytes(100 - HEADERS))
    wire.clock.drain()
    assert len(wire.arrived) == 11


def test_a_packet_above_the_mtu_vanishes() -> None:
    wire = Wire(Conditions(mtu=1280))
    wire.send(bytes(1280 - HEADERS))
    wire.send(bytes(1281 - HEADERS))
    wire.clock.drain()
    assert len(wire.arrived) == 1
    assert wire.fates == [Fate.TOO_BIG]


def test_headers_of_ipv6_and_of_tcp_are_longer() -> None:
    v6 = Address("2001:db8::1", 1)
    assert Packet(Protocol.UDP, ALICE, BOB, b"1234").size == 32
    assert Packet(Protocol.TCP, ALICE, BOB, b"1234").size == 44
    assert Packet(Protocol.UDP, v6, v6, b"1234").size == 52


def test_a_cut_link_takes_nothing_and_loses_what_is_in_flight() -> None:
    wire, back = Wire(Conditions(delay=0.1)), Wire(Conditions())
    link = Link(wire.pipe, back.pipe)
    wire.send(b"in flight")
    link.cut()
    wire.send(b"late")
    back.send(b"late")
    wire.clock.drain()
    assert not link.up
    assert (wire.arrived, wire.fates, back.fates) == ([], [Fate.CUT, Fate.CUT], [Fate.CUT])
    link.mend()
    wire.send(b"after")
    wire.clock.drain()
    assert [packet.data for _, packet in wire.arrived] == [b"after"]


def test_a_link_may_be_down_in_one_direction_only() -> None:
    wire, back = Wire(Conditions()), Wire(Conditions())
    link = Link(wire.pipe, back.pipe)
    link.outward.up = False
    back.send()
    back.clock.drain()
    assert len(back.arrived) == 1
    assert not link.up


def test_who_watches_a_link_hears_of_cut_and_mend() -> None:
    link = Link(Wire(Conditions()).pipe, Wire(Conditions()).pipe)
    heard: list[bool] = []
    link.watch(lambda: heard.append(link.up))
    link.cut()
    link.mend()
    assert heard == [False, True]


def test_the_weather_changes_for_what_comes_after() -> None:
    wire, back = Wire(Conditions(delay=0.1)), Wire(Conditions(delay=0.1))
    wire.send(b"slow")
    Link(wire.pipe, back.pipe).change(Conditions(delay=0.01))
    wire.send(b"fast")
    back.send(b"back")
    wire.clock.drain()
    back.clock.drain()
    assert [(time, packet.data) for time, packet in wire.arrived] == [(0.01, b"fast"), (0.1, b"slow")]
    assert back.times == [0.01]


def _all_weather(seed: int) -> list[tuple[float, Packet]]:
    wire = Wire(
        Conditions(
            delay=0.02, jitter=0.01, loss=0.05, bursts=Bursts(0.01, 0.3), reordering=0.05, duplication=0.05,
            corruption=0.05, rate=1e6,
        ),
        seed,
    )  # fmt: skip
    wire.send_many(500)
    return wire.arrived


def test_the_same_dice_make_the_same_weather() -> None:
    assert _all_weather(1) == _all_weather(1) != _all_weather(2)


@pytest.mark.parametrize("protocol", Protocol)
def test_two_links_with_dice_of_their_own_do_not_touch_each_other(protocol: Protocol) -> None:
    def lost(send_elsewhere: Callable[[Wire], None]) -> list[int]:
        wire, other = Wire(Conditions(loss=0.5), 1), Wire(Conditions(loss=0.5), 2)
        for number in range(100):
            send_elsewhere(other)
            wire.send(number.to_bytes(4, "big"), protocol)
        wire.clock.drain()
        return wire.numbers

    assert lost(lambda other: other.send()) == lost(lambda other: None)
