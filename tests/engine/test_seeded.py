"""An engine in memory with a seed: a run can be repeated byte for byte, on the caller's clock alone."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys

import pytest

from quice import TransportConfig, _native
from quice._native import Event
from tests.engine.flow import Flow
from tests.engine.multihomed import CLIENT_HOSTS, PORT, SERVER_HOSTS, MultihomedPair, link, losing
from tests.engine.pair import ALPN, CLIENT_SEED, SERVER_SEED, Pair, Side, public_key

Datagram = tuple[float, str, bytes]
SEEDS = (bytes(32), bytes([1]) * 32)


def played(seeds: tuple[bytes, bytes] | tuple[None, None] = SEEDS) -> list[Datagram]:
    """Every datagram of a run: enough handshakes at once for Retry, a lossy transfer, datagrams, all kinds of ends."""
    pair = Pair(TransportConfig(idle_timeout=20.0), seeds=seeds)
    sent: list[Datagram] = []
    chance = random.Random(3)

    def loses(sender: Side, data: bytes) -> bool:
        sent.append((pair.now, sender.address[0], data))
        return chance.random() < 0.03

    pair.loses = loses
    crowd = [pair.connect() for _ in range(260)]
    pair.advance(5.0)
    for connection in crowd:
        connection.close(7, b"enough")
    pair.advance(5.0)
    near = pair.connect()
    pair.client.take(Event.Connected)
    pair.server.take(Event.Connected)
    pair.drive(lambda: bool(pair.client.seen(Event.Connected) and pair.server.seen(Event.Connected)))
    far = pair.server.engine.connection(pair.server.seen(Event.Connected)[0].connection)
    flow = Flow(pair, near, far, 400_000)
    flow.run(within=60.0)
    near.send_datagram(b"x")
    far.send_datagram(b"y")
    pair.advance(1.0)
    # From here on nobody hears anything: probes, and the idle timeout.
    pair.loses = lambda sender, data: loses(sender, data) or True
    near.write(near.open(unidirectional=True) or 0, b"z", 0)
    pair.advance(30.0)
    assert pair.client.seen(Event.Lost)
    return sent


def test_the_same_seeds_and_inputs_give_the_same_datagrams() -> None:
    first, second = played(), played()
    assert len(first) > 1000
    assert first == second


def test_another_seed_gives_other_datagrams() -> None:
    first = played()
    for seeds in ((SEEDS[0], bytes([2]) * 32), (bytes([2]) * 32, SEEDS[1]), (None, None)):
        again = played(seeds)
        assert (again[0] == first[0]) == (seeds[0] == SEEDS[0])
        # Whatever a server says, both sides have contributed to.
        from_server = [{data for _, host, data in run if host == "192.0.2.2"} for run in (first, again)]
        assert not from_server[0] & from_server[1]


def test_a_run_over_several_paths_is_repeated_too() -> None:
    def run() -> list[Datagram]:
        pair = MultihomedPair(TransportConfig(nat_traversal=True))
        sent: list[Datagram] = []
        lost = losing(0.05, seed=2)

        def loses(sender: Side, data: bytes) -> bool:
            sent.append((pair.now, sender.address[0], data))
            return lost(sender, data)

        near, far = pair.connected()
        pair.loses = loses
        for index in (1, 2):
            far.add_nat_traversal_address((SERVER_HOSTS[index], PORT))
            near.add_nat_traversal_address((CLIENT_HOSTS[index], PORT))
        pair.advance(0.2)
        near.initiate_nat_traversal_round()
        pair.advance(1.0)
        pair.second_path(near, index=2, backup=True)
        pair.cut.add(link(0))
        Flow(pair, near, far, 300_000).run(within=20.0)
        assert len(near.paths()) > 1
        return sent

    first = run()
    assert len(first) > 300
    assert first == run()


def test_another_process_repeats_the_run() -> None:
    code = "from tests.engine.test_seeded import digest, played; print(digest(played()))"
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50).stdout
        for _ in range(2)
    }
    assert runs == {digest(played()) + "\n"}


def digest(datagrams: list[Datagram]) -> str:
    """All of them in one number."""
    return hashlib.sha256(repr(datagrams).encode()).hexdigest()


def test_seeded_and_unseeded_engines_understand_each_other() -> None:
    for seeds in ((SEEDS[0], None), (None, SEEDS[1])):
        pair = Pair()
        pair.client.engine = engine(CLIENT_SEED, [], seeds[0])
        pair.server.engine = engine(SERVER_SEED, [ALPN], seeds[1])
        near, far = pair.connected()
        flow = Flow(pair, near, far, 100_000)
        flow.run(within=10.0)
        flow.check()


def engine(key: bytes, alpns: list[bytes], seed: bytes | None) -> _native.Engine:
    return _native.Engine(_native.Credentials.raw_key(key), alpns, TransportConfig(), sockets=False, seed=seed)


def test_a_seed_is_refused_where_datagrams_leave_the_process() -> None:
    raw_key = _native.Credentials.raw_key(CLIENT_SEED)
    with pytest.raises(ValueError, match="in memory"):
        _native.Engine(raw_key, [], TransportConfig(), sockets=True, seed=bytes(32))
    with pytest.raises(ValueError, match="raw keys"):
        _native.Engine(_native.Credentials.x509([], b"", []), [], TransportConfig(), sockets=False, seed=bytes(32))
    for wrong in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError, match="32"):
            _native.Engine(raw_key, [], TransportConfig(), sockets=False, seed=wrong)


def test_engines_with_one_seed_do_not_share_its_generator() -> None:
    alone = first_datagrams(engine(CLIENT_SEED, [], bytes(32)), count=3)
    one, other = engine(CLIENT_SEED, [], bytes(32)), engine(CLIENT_SEED, [], bytes(32))
    assert [first_datagrams(one, count=1) + first_datagrams(other, count=1) for _ in range(3)] == [
        [data, data] for data in alone
    ]


def first_datagrams(engine: _native.Engine, *, count: int) -> list[bytes]:
    """What it sends first for each of so many new connections."""
    sent = []
    for _ in range(count):
        engine.connect(("192.0.2.2", 4433), [ALPN], peer=public_key(SERVER_SEED))
        engine.pump(0.0)
        sent += [data for data, _, _ in engine.transmits()]
    return sent


@pytest.mark.parametrize("age", [14.0, 17.0])
def test_a_retry_token_ages_on_the_callers_clock(age: float) -> None:
    pair = Pair(TransportConfig(idle_timeout=100.0), delay=0.0)
    # So many handshakes are under way that the next client must prove its address (RFC 9000 §8.1.2).
    crowd = engine(CLIENT_SEED, [], None)
    for datagram in first_datagrams(crowd, count=256):
        pair.server.engine.receive(datagram, ("192.0.2.3", 4433), pair.server.address[0], 0.0)
    pair.server.engine.pump(0.0)
    pair.server.engine.transmits()
    pair.connect()
    held: list[bytes] = []

    def loses(sender: Side, data: bytes) -> bool:
        # The second Initial, which carries the token, is held back until the token has this age.
        if sender is pair.client and sender.sent > 1 and pair.now < 1.0:
            held.append(data)
        return sender is pair.client and sender.sent > 1 and pair.now < age

    pair.loses = loses
    pair.advance(age)
    pair.server.engine.receive(held[0], pair.client.address, pair.server.address[0], pair.now)
    pair.advance(1.0)
    assert bool(pair.client.seen(Event.Connected)) == (age < 15.0)
    # RFC 9000 §8.1.3: INVALID_TOKEN.
    assert [event.code for event in pair.client.seen(Event.Lost)] == [0x0B] * (age > 15.0)


def test_bound_addresses_show_in_packets_and_paths() -> None:
    pair = Pair()
    for side in (pair.client, pair.server):
        host, port = side.address
        assert side.engine.bind(host, port) == (-1, (host, port))
        assert side.engine.bind("2001:db8::1", 5000) == (-1, ("2001:db8::1", 5000))
    near, far = pair.connected()
    pair.advance(0.1)
    assert [path["local"] for path in near.paths()] == [pair.client.address]
    assert [path["local"] for path in far.paths()] == [pair.server.address]
    request = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
    engine = pair.client.engine
    for host, port in (pair.client.address, ("2001:db8::1", 5000)):
        source = ("2001:db8::2", 1) if ":" in host else ("192.0.2.9", 1)
        engine.receive(request, source, host, pair.now)
        events, _, _, _ = engine.pump(pair.now)
        (packet,) = events
        assert isinstance(packet, Event.Packet)
        assert (packet.source, packet.destination) == (source, (host, port))


def test_addresses_of_one_family_keep_their_own_ports() -> None:
    engine = Pair().client.engine
    for number in (1, 2, 3):
        engine.bind(f"192.0.2.{number}", 4000 + number)
    request = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
    engine.receive(request, ("192.0.2.9", 1), "192.0.2.2", 0.0)
    (packet,), _, _, _ = engine.pump(0.0)
    assert isinstance(packet, Event.Packet)
    assert packet.destination == ("192.0.2.2", 4002)


def test_port_zero_becomes_a_port_that_is_free() -> None:
    engine = Pair().client.engine
    bound = [engine.bind("192.0.2.1", 0)[1] for _ in range(3)]
    assert bound == [("192.0.2.1", 49152), ("192.0.2.1", 49153), ("192.0.2.1", 49154)]
    assert engine.bind("192.0.2.2", 0)[1] == ("192.0.2.2", 49152)
    with pytest.raises(OSError, match="in use"):
        engine.bind("192.0.2.1", 49153)


@pytest.mark.parametrize("start", [0.0, 1e6, 1.7e9])
def test_a_pump_at_the_time_asked_for_finds_its_timer_due(start: float) -> None:
    # On a clock that counts from 1970, a float is up to 0.2 µs beside the timer.
    pair = Pair()
    engine = pair.client.engine
    engine.pump(start)
    engine.connect(pair.server.address, [ALPN], peer=public_key(SERVER_SEED))
    _, due, _, _ = engine.pump(start)
    for _ in range(50):
        if due is None:
            break
        assert due >= start
        before, (_, due, _, _) = due, engine.pump(due)
        assert due is None or due > before
    assert due is None
