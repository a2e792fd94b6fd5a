"""First packets of handshakes in floods, under any number of forged sources (RFC 9000 §8.1, §21.3)."""

from __future__ import annotations

import random
import time

import pytest

from fuzz.initial import Keys, packet, varint
from fuzz.memory import resident
from fuzz.targets.engine import _CLIENT_HELLO
from quice import Endpoint, TransportConfig
from quice._native import Event
from quice.server import Server
from quice.sim.packet import Fate, Packet, Passage, Protocol
from quice.sim.world import World
from quice.wire import Address
from tests.engine.pair import ALPN, DELAY, SERVER_SEED, Pair, Side, public_key
from tests.security.hostile import ALPN as TARGET
from tests.sim.sockets import address

RETRY_FROM = 64
MOST_ALIKE = 16
FLOOD = 20_000
TAG = b"expected"


def initial(rng: random.Random, start: bytes = b"") -> bytes:
    """A first packet that is in order, of a ClientHello whose end will never come."""
    identifier = start + rng.randbytes(17 - len(start))
    keys = Keys.derive(identifier, client=True)
    hello = _CLIENT_HELLO[:40]
    frames = b"\6" + varint(0) + varint(len(hello)) + hello
    return packet(keys, identifier, rng.randbytes(8), frames)


def forged_source(rng: random.Random) -> tuple[str, int]:
    return f"198.{18 + rng.randrange(2)}.{rng.randrange(256)}.{rng.randrange(1, 255)}", rng.randrange(1024, 1 << 16)


def is_retry(data: bytes) -> bool:
    """RFC 9000 §17.2.5."""
    return data[0] & 0xF0 == 0xF0 and data[1:5] == b"\0\0\0\1"


class Flood:
    """First packets with forged sources that come to the server of a pair."""

    def __init__(self, pair: Pair, seed: int = 1) -> None:
        self.pair = pair
        self.rng = random.Random(seed)
        self.answers: list[bytes] = []
        self.destinations: list[tuple[str, int]] = []

    def send(self, count: int, *, start: bytes = b"", every: float = 0.0) -> None:
        server = self.pair.server.engine
        for _ in range(count):
            server.receive(
                initial(self.rng, start), forged_source(self.rng), self.pair.server.address[0], self.pair.now
            )
            self.collect()
            self.pair.now += every

    def collect(self) -> None:
        events, _, more, _ = self.pair.server.engine.pump(self.pair.now)
        assert not more
        self.pair.server.events += events
        for data, _, destination in self.pair.server.engine.transmits():
            self.answers.append(data)
            self.destinations.append(destination)

    @property
    def retries(self) -> int:
        return sum(map(is_retry, self.answers))


def seconds_to_connect(pair: Pair, initial_id: bytes | None = None) -> float:
    """How long a handshake takes now, on the clock of the pair."""
    began, peer = pair.now, public_key(SERVER_SEED)
    pair.client.engine.connect(pair.server.address, [ALPN], peer=peer, initial_id=initial_id)
    pair.drive(lambda: bool(pair.client.seen(Event.Connected)))
    return pair.now - began


QUIET = seconds_to_connect(Pair())


def test_a_few_handshakes_begin_without_a_round_trip_more() -> None:
    pair = Pair()
    flood = Flood(pair)
    flood.send(RETRY_FROM - 1)
    assert flood.retries == 0
    assert seconds_to_connect(pair) == pytest.approx(QUIET)


def test_under_a_flood_who_is_not_expected_proves_its_address_and_connects() -> None:
    pair = Pair()
    flood = Flood(pair)
    flood.send(RETRY_FROM + 1000)
    assert flood.retries == 1000
    assert seconds_to_connect(pair) == pytest.approx(QUIET + 2 * DELAY)


def test_under_a_flood_who_is_expected_connects_as_soon_as_ever() -> None:
    pair = Pair()
    Flood(pair).send(RETRY_FROM + 1000)
    pair.server.engine.expect(TAG)
    assert seconds_to_connect(pair, TAG + bytes(9)) == pytest.approx(QUIET)


def test_who_knows_what_is_expected_has_no_more_handshakes_than_a_session() -> None:
    pair = Pair()
    flood = Flood(pair)
    flood.send(RETRY_FROM)
    pair.server.engine.expect(TAG)
    flood.send(100, start=TAG)
    assert flood.retries == 100 - MOST_ALIKE
    pair.server.engine.expect_no_more(TAG)
    flood.send(10, start=TAG)
    assert flood.retries == 110 - MOST_ALIKE


def test_a_flood_leaves_nothing_behind_and_costs_little() -> None:
    pair = Pair()
    flood = Flood(pair)
    flood.send(RETRY_FROM + 1000)
    before, began = resident(), time.process_time()
    flood.send(FLOOD)
    seconds = time.process_time() - began
    assert resident() - before < 8 << 20
    # What is sent to forged sources is less than has come under their names.
    assert max(map(len, flood.answers[-1000:])) < 200
    # Without a flood the same handshakes are begun.
    other = Pair()
    beginning = Flood(other)
    began = time.process_time()
    beginning.send(RETRY_FROM)
    assert seconds / FLOOD < (time.process_time() - began) / RETRY_FROM


def test_a_flood_that_is_over_is_forgotten() -> None:
    pair = Pair(TransportConfig())
    flood = Flood(pair)
    flood.send(RETRY_FROM + 10)
    assert flood.retries == 10
    pair.advance(60)
    pair.server.engine.transmits()
    flood.answers.clear()
    flood.send(RETRY_FROM)
    assert flood.retries == 0


def test_a_retrys_token_is_of_no_use_to_another_address() -> None:
    """What RFC 9000 §8.1.4 asks of tokens: else one machine could prove addresses for a flood of many."""
    pair = Pair()
    flood = Flood(pair)
    flood.send(RETRY_FROM)
    initials: list[bytes] = []

    def loses(sender: Side, data: bytes) -> bool:
        if sender is pair.client:
            initials.append(data)
        return len(initials) > 1

    pair.loses = loses
    pair.connect()
    pair.drive(lambda: len(initials) > 1)
    with_token, source = initials[1], forged_source(flood.rng)
    pair.server.engine.receive(with_token, source, pair.server.address[0], pair.now)
    flood.collect()
    (refusal,) = (data for data, to in zip(flood.answers, flood.destinations, strict=True) if to == source)
    # INVALID_TOKEN at once, and no connection.
    assert len(refusal) < 100


async def test_peers_that_have_called_connect_through_a_flood_as_soon_as_without(
    world: World, rendezvous: Server
) -> None:
    alice, bob = world.host("alice"), world.host("bob")
    retries: list[bytes] = []
    rng = random.Random(9)
    with bob:
        far = await Endpoint.bind(server=rendezvous.url, alpns=[TARGET])
    with alice:
        near = await Endpoint.bind(server=rendezvous.url)
        first = await near.connect(far.peer, alpn=TARGET)

    def watch(passage: Passage) -> None:
        if passage.place == "bob" and passage.fate is Fate.SENT and is_retry(passage.packet.data):
            retries.append(passage.packet.data)

    world.watch(watch)
    there = Address(address(bob), far.port)
    for _ in range(RETRY_FROM + 100):
        source = Address(*forged_source(rng))
        world.internet.from_inside(Packet(Protocol.UDP, source, there, initial(rng), sender="eve"))
    with alice:
        second = await near.connect(far.peer, alpn=TARGET)
    assert second.connect_seconds == pytest.approx(first.connect_seconds or 0, abs=0.001)
    assert len(retries) == 100
