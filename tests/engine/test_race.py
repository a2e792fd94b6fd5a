"""Attempts of one race: whatever arrives when, at most one becomes a connection, and nothing is left of the others."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

import pytest

from quice import TransportConfig, _native
from quice._native import Event, Loss
from tests.engine.pair import ALPN, CLIENT_SEED, SERVER_SEED, public_key

CLIENT = ("192.0.2.1", 4433)
SERVERS = [(f"192.0.2.{number}", 4433) for number in (11, 12, 13)]
# Which attempt's flight, in the order of arrival; a number twice is a duplicate, one that is missing is lost.
Order = tuple[int, ...]


class Course:
    """A client and a server with an address for each attempt, between which the test carries the datagrams."""

    def __init__(self, *, seed: int = 0, idle_timeout: float = 10.0) -> None:
        config = TransportConfig(idle_timeout=idle_timeout)
        raw_key = _native.Credentials.raw_key
        seeds = [random.Random(seed * 2 + side).randbytes(32) for side in (0, 1)]
        self.client = _native.Engine(raw_key(CLIENT_SEED), [], config, sockets=False, seed=seeds[0])
        self.server = _native.Engine(raw_key(SERVER_SEED), [ALPN], config, sockets=False, seed=seeds[1])
        self.now = 0.0
        self.seen: dict[str, list[Event]] = {"client": [], "server": []}
        self.due: list[float] = []

    def attempt(self, number: int, *, race: int = 1) -> _native.Connection:
        """Try the server's address with this number."""
        return self.client.connect(SERVERS[number], [ALPN], peer=public_key(SERVER_SEED), race=race)

    def pump(self) -> None:
        """Let both sides do what is due."""
        self.due = []
        for name, engine in (("client", self.client), ("server", self.server)):
            events, due, _, _ = engine.pump(self.now)
            self.seen[name] += events
            self.due += [] if due is None else [due]

    def from_client(self) -> list[tuple[int, bytes]]:
        """What the client has sent, each with the number of the attempt."""
        return [(SERVERS.index(remote), data) for data, _, remote in self.client.transmits()]

    def from_server(self) -> list[tuple[int, bytes]]:
        """What the server has sent, likewise."""
        sources = [source for source, _ in SERVERS]
        return [(sources.index(source or ""), data) for data, source, _ in self.server.transmits()]

    def to_client(self, number: int, data: bytes) -> None:
        """Let a datagram of the server arrive, without letting the client answer."""
        self.client.receive(data, SERVERS[number], CLIENT[0], self.now)

    def to_server(self, number: int, data: bytes) -> None:
        """Let a datagram of the client arrive, without letting the server answer."""
        self.server.receive(data, CLIENT, SERVERS[number][0], self.now)

    def flights(self, numbers: Order) -> list[list[bytes]]:
        """Start these attempts; returns what the server first answers to each."""
        for number in numbers:
            self.attempt(number)
        self.pump()
        for number, data in self.from_client():
            self.to_server(number, data)
        self.pump()
        answers = self.from_server()
        return [[data for number, data in answers if number == wanted] for wanted in numbers]

    def run(self, until: float, lost: Callable[[], bool] = lambda: False) -> None:
        """Carry everything until that time, save what is lost."""
        while True:
            self.pump()
            sent = [(self.to_server, *one) for one in self.from_client()]
            sent += [(self.to_client, *one) for one in self.from_server()]
            for deliver, number, data in sent:
                if not lost():
                    deliver(number, data)
            if sent:
                continue
            due = min(self.due, default=until)
            if due >= until:
                self.now = until
                return
            self.now = max(self.now, due)

    def connected(self, side: str) -> list[int]:
        """The connections of one side that were established."""
        return [event.connection for event in self.seen[side] if isinstance(event, Event.Connected)]

    def drained(self, side: str) -> list[int]:
        """The connections of one side of which nothing is left."""
        return [event.connection for event in self.seen[side] if isinstance(event, Event.Drained)]

    def outraced(self) -> list[int]:
        """The attempts that were told that another was faster."""
        lost = [event for event in self.seen["client"] if isinstance(event, Event.Lost)]
        assert all(event.loss == Loss.Outraced for event in lost)
        return [event.connection for event in lost]

    def check(self, attempts: int) -> None:
        """One connection, and after it is closed, nothing."""
        (winner,) = self.connected("client")
        (accepted,) = self.connected("server")
        assert len(self.outraced()) == attempts - 1
        assert sorted(self.drained("client")) == sorted(self.outraced())
        assert winner not in self.drained("client")
        assert accepted not in self.drained("server")
        self.client.connection(winner).close(0, b"")
        self.run(self.now + 5.0)
        # No timer: neither side has a connection any more.
        assert not self.due
        assert len(self.drained("client")) == attempts


def orders(attempts: int) -> Iterator[Order]:
    """Every order in which the flights of so many attempts can arrive, each never, once or twice."""
    for counts in itertools.product((0, 1, 2), repeat=attempts):
        arriving = [number for number, count in enumerate(counts) for _ in range(count)]
        yield from sorted(set(itertools.permutations(arriving)))


def batches(order: Order) -> Iterator[tuple[bool, ...]]:
    """After which arrivals the client may transmit: with few arrivals, all choices."""
    if len(order) <= 3:
        yield from itertools.product((False, True), repeat=len(order))
    else:
        yield from ([False] * len(order), [True] * len(order))


def raced(attempts: int, order: Order, transmits_after: tuple[bool, ...]) -> None:
    course = Course()
    flights = course.flights(tuple(range(attempts)))
    for number, transmits in zip(order, transmits_after, strict=True):
        for data in flights[number]:
            course.to_client(number, data)
        if transmits:
            course.pump()
    course.run(5.0)
    course.check(attempts)
    if order:
        # The first flight to arrive decides.
        (winner,) = course.connected("client")
        (first,) = (event for event in course.seen["client"] if isinstance(event, Event.Connected))
        assert first.connection == winner
        assert winner & 0xFFFFFFFF == order[0]


def test_two_attempts_become_one_connection_in_every_order_of_arrival() -> None:
    for order in orders(2):
        for transmits_after in batches(order):
            raced(2, order, transmits_after)


def test_three_attempts_become_one_connection_in_every_order_of_arrival() -> None:
    for order in orders(3):
        for transmits_after in batches(order):
            raced(3, order, transmits_after)


def test_flights_in_pieces_and_in_one_batch_make_one_connection() -> None:
    # A long certificate spreads a flight over datagrams. A short one is cut here where its packets meet.
    for order in sorted(set(itertools.permutations((0, 0, 1, 1, 2, 2)))):
        course = Course()
        pieces = [split(b"".join(flight)) for flight in course.flights((0, 1, 2))]
        assert [len(piece) for piece in pieces] == [2, 2, 2]
        for number in order:
            course.to_client(number, pieces[number].pop(0))
        course.run(5.0)
        course.check(3)


def split(datagram: bytes) -> list[bytes]:
    """A datagram's packets with long headers (RFC 9000 §17.2), one by one; what follows stays with the last."""
    packets: list[bytes] = []
    while datagram:
        if not datagram[0] & 0x80:
            packets[-1] += datagram
            break
        at = 5
        for _ in range(2):
            at += 1 + datagram[at]
        if datagram[0] & 0x30 == 0:
            at += 1
        size = 1 << (datagram[at] >> 6)
        length = int.from_bytes(datagram[at : at + size], "big") & ((1 << (8 * size - 2)) - 1)
        end = at + size + length
        packets.append(datagram[:end])
        datagram = datagram[end:]
    return packets


def test_a_client_that_closes_amid_the_handshake_says_so_once() -> None:
    course = Course()
    connection = course.attempt(0)
    course.pump()
    for number, data in course.from_client():
        course.to_server(number, data)
    course.pump()
    # The client gets keys for its second packet number space, and has used only the first.
    (number, flight), *_ = course.from_server()
    course.to_client(number, split(flight)[0])
    course.pump()
    course.from_client()
    connection.close(0, b"")
    sent = []
    for _ in range(5):
        course.pump()
        sent += course.from_client()
    assert len(sent) == 2
    for number, data in sent:
        course.to_server(number, data)
    course.run(9.0)
    assert not course.due


def losing(chance: random.Random, loss: float) -> Callable[[], bool]:
    """Whether the next datagram is lost."""
    return lambda: chance.random() < loss


@pytest.mark.parametrize("loss", [0.1, 0.3, 0.5])
def test_loss_of_anything_leaves_at_most_one_connection(loss: float) -> None:
    connected = 0
    for seed in range(60):
        course = Course(seed=seed)
        chance = random.Random(seed)
        lost = losing(chance, loss)
        attempts, started = chance.choice((2, 3)), 0
        for number in range(attempts):
            if not course.connected("client"):
                course.attempt(number)
                started += 1
                course.run(course.now + chance.choice((0.0, 0.25)), lost)
        course.run(60.0, lost)
        assert len(course.connected("client")) <= 1
        assert len(course.connected("server")) <= 1
        connected += len(course.connected("server"))
        for connection in course.connected("client"):
            if connection not in course.drained("client"):
                course.client.connection(connection).close(0, b"")
        course.run(120.0)
        assert not course.due
        assert len(course.drained("client")) == started
    assert connected > 40


def test_a_server_that_is_told_frees_a_loser_at_once() -> None:
    course = Course(idle_timeout=60.0)
    flights = course.flights((0, 1, 2))
    course.to_client(1, flights[1][0])
    course.run(course.now)
    lost = [event for event in course.seen["server"] if isinstance(event, Event.Lost)]
    assert [event.loss for event in lost] == [Loss.ClosedByPeer] * 2
    course.run(10.0)
    course.check(3)


def test_losers_learn_of_it_when_the_winner_is_known() -> None:
    course = Course()
    flights = course.flights((0, 1))
    course.to_client(1, flights[1][0])
    course.pump()
    assert len(course.connected("client")) == len(course.outraced()) == 1


def test_an_attempt_may_join_until_the_race_is_won() -> None:
    course = Course()
    course.attempt(0)
    course.run(0.2, lambda: True)
    course.attempt(1)
    course.pump()
    # The first attempt is cut off, the second is not.
    while not course.connected("server"):
        for number, data in course.from_client():
            if number == 1:
                course.to_server(number, data)
        for number, data in course.from_server():
            course.to_client(number, data)
        course.pump()
    with pytest.raises(_native.RaceWon):
        course.attempt(2)
    course.run(course.now + 5.0)
    course.check(2)
    # When all is gone, the number means another race.
    course.attempt(2)
    course.run(course.now + 1.0)
    assert len(course.connected("server")) == 2


def test_a_race_in_which_all_fail_can_still_be_won_by_one_that_joins() -> None:
    course = Course(idle_timeout=2.0)
    course.attempt(0)
    course.run(1.0, lambda: True)
    course.attempt(1)
    course.run(6.0, lambda: True)
    lost = [event for event in course.seen["client"] if isinstance(event, Event.Lost)]
    assert [event.loss for event in lost] == [Loss.TimedOut] * 2
    course.attempt(2)
    course.run(7.0)
    assert len(course.connected("client")) == len(course.connected("server")) == 1


def test_races_do_not_disturb_one_another() -> None:
    course = Course()
    for race in (1, 2):
        for number in (0, 1):
            course.attempt(number, race=race)
    alone = course.client.connect(SERVERS[2], [ALPN], peer=public_key(SERVER_SEED))
    course.run(5.0)
    assert len(course.connected("client")) == len(course.connected("server")) == 3
    assert alone.id in course.connected("client")
    assert len(course.outraced()) == len(course.drained("client")) == 2
