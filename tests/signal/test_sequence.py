"""Messages arrive once and in order, whatever is lost, late or doubled between the two sides."""

from __future__ import annotations

import heapq
import itertools
import random

import msgspec
import pytest

from quice.signal.sequence import MAX_UNACKNOWLEDGED, Envelope, MessageSequence

LATENCY = 0.1


class Carrier:
    """What is between two sequences, on a clock of its own."""

    def __init__(self, loss: float = 0.0, seed: int = 1, jitter: float = 0.0) -> None:
        self.now = 0.0
        self.loss = loss
        self.sides = [MessageSequence(), MessageSequence()]
        self.arrived: list[list[bytes]] = [[], []]
        self.carried = [0, 0]
        self._jitter = jitter
        self._rng = random.Random(seed)
        self._flying: list[tuple[float, int, int, bytes]] = []
        self._count = itertools.count()

    def send(self, side: int, message: bytes) -> None:
        self.sides[side].send(message, self.now)
        self._flush()

    def run(self, seconds: float) -> None:
        """Let that much time pass."""
        end = self.now + seconds
        self._flush()
        while True:
            wakes = [when for side in self.sides if (when := side.timeout()) is not None]
            self.now = min([each[0] for each in self._flying] + wakes, default=end)
            if self.now > end:
                self.now = end
                return
            if self._flying and self._flying[0][0] <= self.now:
                _, _, to, body = heapq.heappop(self._flying)
                self.arrived[to] += self.sides[to].receive(body, self.now)
            for side in self.sides:
                when = side.timeout()
                if when is not None and when <= self.now:
                    side.handle_timeout(self.now)
            self._flush()
            if not self._flying and all(side.timeout() is None for side in self.sides):
                self.now = end
                return

    def _flush(self) -> None:
        for number, side in enumerate(self.sides):
            for body in side.transmits():
                self.carried[number] += 1
                if self._rng.random() >= self.loss:
                    delay = LATENCY + self._rng.random() * self._jitter
                    heapq.heappush(self._flying, (self.now + delay, next(self._count), 1 - number, body))


def test_a_message_costs_one_body_and_an_answer_carries_its_acknowledgement() -> None:
    carrier = Carrier()
    carrier.send(0, b"offer")
    carrier.run(LATENCY)
    carrier.send(1, b"answer")
    carrier.run(60)
    assert carrier.arrived == [[b"answer"], [b"offer"]]
    # The answer itself is acknowledged alone: nothing follows it.
    assert carrier.carried == [2, 1]


def test_nothing_is_sent_once_all_is_acknowledged() -> None:
    carrier = Carrier()
    carrier.send(0, b"x")
    carrier.run(1)
    assert [side.timeout() for side in carrier.sides] == [None, None]


def test_a_message_that_is_lost_is_sent_again_after_a_second() -> None:
    carrier = Carrier(loss=1.0)
    carrier.send(0, b"x")
    carrier.loss = 0.0
    carrier.run(0.99)
    assert carrier.arrived[1] == []
    carrier.run(0.01 + LATENCY)
    assert carrier.arrived[1] == [b"x"]


def test_a_new_connection_brings_all_that_is_not_acknowledged_at_once() -> None:
    carrier = Carrier(loss=1.0)
    carrier.send(0, b"one")
    carrier.send(0, b"two")
    carrier.loss = 0.0
    carrier.sides[0].repeat()
    carrier.run(LATENCY)
    assert carrier.arrived[1] == [b"one", b"two"]


def test_what_comes_early_waits_for_what_was_lost() -> None:
    carrier = Carrier(loss=1.0)
    carrier.send(0, b"one")
    carrier.loss = 0.0
    carrier.send(0, b"two")
    carrier.run(0.5)
    assert carrier.arrived[1] == []
    carrier.run(1)
    assert carrier.arrived[1] == [b"one", b"two"]


def test_what_comes_again_because_its_acknowledgement_was_lost_is_acknowledged_and_dropped() -> None:
    carrier = Carrier()
    carrier.send(0, b"x")
    carrier.run(LATENCY)
    carrier.loss = 1.0
    carrier.run(0.5)
    carrier.loss = 0.0
    carrier.run(2)
    assert carrier.arrived[1] == [b"x"]
    assert carrier.sides[0].timeout() is None


@pytest.mark.parametrize("seed", range(50))
def test_all_messages_arrive_once_and_in_order_through_any_loss_and_disorder(seed: int) -> None:
    rng = random.Random(seed)
    carrier = Carrier(loss=rng.uniform(0, 0.6), seed=seed, jitter=rng.uniform(0, 1))
    sent: list[list[bytes]] = [[], []]
    for number in range(40):
        side = rng.randrange(2)
        sent[side].append(b"%d" % number)
        carrier.send(side, sent[side][-1])
        carrier.run(rng.expovariate(5))
    carrier.loss = 0.0
    carrier.run(20)
    assert carrier.arrived == [sent[1], sent[0]]
    assert [side.timeout() for side in carrier.sides] == [None, None]


def test_a_peer_that_says_nothing_for_long_is_given_up() -> None:
    carrier = Carrier(loss=1.0)
    carrier.send(0, b"x")
    carrier.run(19)
    assert not carrier.sides[0].is_given_up
    carrier.run(6)
    assert carrier.sides[0].is_given_up
    assert carrier.sides[0].timeout() is None
    assert carrier.carried[0] <= 8


def test_a_peer_that_is_slow_but_there_is_not_given_up() -> None:
    carrier = Carrier(loss=0.4)
    for _ in range(200):
        carrier.send(0, b"x")
        carrier.run(1)
    assert not carrier.sides[0].is_given_up


def test_only_so_much_may_be_unacknowledged() -> None:
    carrier = Carrier(loss=1.0)
    for _ in range(MAX_UNACKNOWLEDGED):
        assert not carrier.sides[0].is_full
        carrier.send(0, b"x")
    assert carrier.sides[0].is_full


def test_a_peer_that_floods_early_messages_is_kept_small() -> None:
    side = MessageSequence()
    for number in range(2, 100_000):
        side.receive(msgspec.msgpack.encode(Envelope(number, 0, bytes(100))), 0.0)
    assert len(side._early) <= 128
    assert len(side.receive(msgspec.msgpack.encode(Envelope(1, 0, b"")), 0.0)) <= 129


def test_an_acknowledgement_of_what_was_never_sent_is_no_harm() -> None:
    carrier = Carrier()
    carrier.sides[0].receive(msgspec.msgpack.encode(Envelope(0, 1 << 31)), 0.0)
    carrier.send(0, b"x")
    carrier.run(1)
    assert carrier.arrived[1] == [b"x"]


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x91" * 10_000, b"\x93\x01\x00\xa1x", b"\x92\xff\x00", b"\x93\x01\x00\xc4\x05x", b"\x80"]
)
def test_what_is_no_envelope_is_ignored(body: bytes) -> None:
    side = MessageSequence()
    assert side.receive(body, 0.0) == []
    assert side.timeout() is None
    assert not side.is_heard
