"""Relayed routes: packets that go and come through a TURN server, beside those that don't."""

from __future__ import annotations

import hashlib
import random

import pytest

from quice import TransportConfig, _native
from quice._native import Event
from tests.engine.flow import Flow
from tests.engine.pair import ALPN, SERVER_SEED, Pair, Side, public_key
from tests.engine.relayed import CLIENT, SERVER, Allocation, RelayedPair, channel_data

MIB = 1 << 20
# A STUN header with no attribute (RFC 8489 §5).
STUN = b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12)
PEER = ("198.51.100.7", 7)


def behind_relay(pair: RelayedPair, side: Side, *, stream: bool = False) -> Allocation:
    """An allocation of this side, with a channel to the other side's own address."""
    allocation = pair.allocate(side, stream=stream)
    allocation.bind(SERVER if side is pair.client else CLIENT)
    return allocation


def joined(pair: RelayedPair, *, stream: bool = False) -> tuple[Allocation, Allocation]:
    """An allocation of each side, with channels to the other's."""
    near, far = (pair.allocate(side, stream=stream) for side in (pair.client, pair.server))
    near.bind(far.relayed)
    far.bind(near.relayed)
    return near, far


def packets(engine: _native.Engine, now: float = 0.0) -> list[tuple[bytes, object, object]]:
    """What the engine has for the layer above: data, source and destination."""
    events, _, _, _ = engine.pump(now)
    return [(event.data, event.source, event.destination) for event in events if isinstance(event, Event.Packet)]


def both_ways(pair: RelayedPair, near: _native.Connection, far: _native.Connection, size: int = MIB) -> None:
    """Bytes from the client, checked, and something back."""
    flow = Flow(pair, near, far, size)
    flow.run(within=20.0)
    flow.check()
    stream = far.open(unidirectional=True)
    assert stream is not None
    far.write(stream, b"back", 0)
    pair.client.take(Event.Opened)
    pair.drive(lambda: bool(pair.client.seen(Event.Opened)))
    assert near.read(stream, 10) == b"back"


@pytest.mark.parametrize("stream", [False, True])
def test_a_connection_is_made_and_carries_data_through_a_relay(stream: bool) -> None:
    pair = RelayedPair()
    allocation = behind_relay(pair, pair.client, stream=stream)
    pair.cut = True
    near, far = pair.connected_by(allocation.host)
    assert [(path["local"], path["remote"]) for path in near.paths()] == [((allocation.host, 0), SERVER)]
    assert [(path["local"], path["remote"]) for path in far.paths()] == [(SERVER, allocation.relayed)]
    both_ways(pair, near, far, 4 * MIB)
    assert pair.client.engine.relay_drops() == pair.server.engine.relay_drops() == (0, 0, 0)
    assert pair.client.engine.drops() == (0, 0)
    # Nothing went past the relay, and its server was reached as it was said.
    sent = {(source, destination) for _, source, destination, _ in pair.wire if source[0] == CLIENT[0]}
    assert sent == (set() if stream else {(CLIENT, allocation.server)})


@pytest.mark.parametrize("stream", [False, True])
def test_both_sides_may_be_behind_relays(stream: bool) -> None:
    pair = RelayedPair()
    ours, theirs = joined(pair, stream=stream)
    pair.cut = True
    near, far = pair.connected_by(ours.host, theirs.relayed)
    assert [(path["local"], path["remote"]) for path in near.paths()] == [((ours.host, 0), theirs.relayed)]
    assert [(path["local"], path["remote"]) for path in far.paths()] == [((theirs.host, 0), ours.relayed)]
    both_ways(pair, near, far)


def test_packets_of_full_size_pass_with_the_frame_around_them() -> None:
    pair = RelayedPair()
    near, far = pair.connected_by(behind_relay(pair, pair.client).host)
    both_ways(pair, near, far, 4 * MIB)
    assert [path["mtu"] for path in near.paths()] == [path["mtu"] for path in far.paths()] == [1448]
    # What Ethernet carries, without the headers of UDP and IPv6.
    assert max(len(data) for *_, data in pair.wire) == 1500 - 8 - 40


def test_a_direct_path_takes_over_from_a_relay_and_no_byte_is_lost() -> None:
    pair = RelayedPair()
    ours, theirs = joined(pair)
    near, far = pair.connected_by(ours.host, theirs.relayed)
    flow = Flow(pair, near, far, 32 * MIB)
    for _ in range(20):
        flow.push()
        flow.pull()
        pair.advance(0.01)
    direct = pair.path(near, SERVER, CLIENT[0])
    near.set_path_status(0, backup=True)
    pair.advance(0.2)
    relayed = ours.sent
    flow.run(within=30.0)
    flow.check()
    assert flow.read - 8 * MIB > 1200 * 10 * (ours.sent - relayed)
    assert near.stats()["lost_packets"] == far.stats()["lost_packets"] == 0
    near.close_path(0)
    ours.side.engine.remove_relay(ours.host)
    pair.advance(1.0)
    both_ways(pair, near, far)
    assert [path["id"] for path in near.paths()] == [path["id"] for path in far.paths()] == [direct]


def test_one_remote_is_reached_directly_and_through_two_relays_at_once() -> None:
    pair = RelayedPair()
    first, second = behind_relay(pair, pair.client), behind_relay(pair, pair.client)
    near, far = pair.connected_by(first.host)
    pair.path(near, SERVER, CLIENT[0], backup=True)
    pair.path(near, SERVER, second.host, backup=True)
    assert [(path["local"], path["remote"]) for path in near.paths()] == [
        ((first.host, 0), SERVER),
        (CLIENT, SERVER),
        ((second.host, 0), SERVER),
    ]
    assert [path["remote"] for path in far.paths()] == [first.relayed, CLIENT, second.relayed]
    # Each answer comes back by the way its question went.
    for path in (0, 1, 2):
        for other in (0, 1, 2):
            near.set_path_status(other, backup=other != path)
        pair.advance(0.1)
        before = [counts["received_bytes"] for counts in near.paths()]
        both_ways(pair, near, far)
        grown = [
            int(str(now["received_bytes"])) - int(str(then)) for now, then in zip(near.paths(), before, strict=True)
        ]
        assert grown[path] > 10 * (sum(grown) - grown[path])
        pair.server.take(Event.Opened)


def test_a_server_tells_the_ways_of_one_client_apart_by_where_they_arrive() -> None:
    pair = RelayedPair()
    ours, theirs = joined(pair)
    ours.bind(SERVER)
    near, far = pair.connected_by(ours.host, theirs.relayed)
    pair.path(near, SERVER, ours.host, backup=True)
    pair.advance(2.0)
    # The client's relayed address is the remote of both.
    assert [(path["local"], path["remote"]) for path in far.paths()] == [
        ((theirs.host, 0), ours.relayed),
        (SERVER, ours.relayed),
    ]
    both_ways(pair, near, far)


def test_a_relay_that_stops_relaying_is_left_for_the_direct_path() -> None:
    pair = RelayedPair()
    ours, theirs = joined(pair)
    near, far = pair.connected_by(ours.host, theirs.relayed)
    pair.path(near, SERVER, CLIENT[0], backup=True)
    flow = Flow(pair, near, far, 8 * MIB)
    pair.advance(0.2)
    ours.channels.clear()
    ours.side.engine.unbind_channel(ours.host, theirs.relayed)
    theirs.channels.clear()
    flow.run(within=5.0)
    flow.check()
    assert pair.client.engine.relay_drops()[1] > 0


def test_packets_of_a_removed_relay_are_dropped_and_counted() -> None:
    pair = RelayedPair()
    allocation = behind_relay(pair, pair.client)
    near, far = pair.connected_by(allocation.host)
    pair.path(near, SERVER, CLIENT[0], backup=True)
    pair.client.engine.remove_relay(allocation.host)
    pair.wire.clear()
    flow = Flow(pair, near, far, 4 * MIB)
    flow.run(within=5.0)
    flow.check()
    assert pair.client.engine.relay_drops()[1] > 0
    assert {(source, destination) for _, source, destination, _ in pair.wire if source == CLIENT} == {(CLIENT, SERVER)}
    # What its server still sends is no ChannelData any more, and no QUIC of anybody's.
    before = pair.client.engine.relay_drops()
    pair.client.engine.receive(channel_data(0x4000, bytes(100)), allocation.server, CLIENT[0], pair.now)
    pair.client.engine.receive_relayed(allocation.host, PEER, STUN, pair.now)
    pair.client.engine.receive_stream(allocation.host, STUN, pair.now)
    assert pair.client.engine.relay_drops() == (before[0] + 2, *before[1:])
    assert not packets(pair.client.engine, pair.now)


def test_no_two_relays_of_an_engine_have_had_the_same_host() -> None:
    engine = Pair().client.engine
    hosts = []
    for _ in range(5):
        hosts += [engine.add_relay(("203.0.113.1", 3478)), engine.add_relay(("203.0.113.1", 3478), stream=True)]
        engine.remove_relay(hosts[-1])
        engine.remove_relay(hosts[-1])
    assert len(set(hosts)) == 10


@pytest.mark.parametrize("octet", range(256))
def test_the_first_octet_says_what_a_datagram_of_a_relays_server_is(octet: int) -> None:
    # RFC 9443 §3: ChannelData is told from QUIC by where it comes from.
    engine = Pair().client.engine
    server = ("203.0.113.1", 3478)
    host = engine.add_relay(server, local=CLIENT[0])
    engine.bind_channel(host, PEER, 0x4021)
    data = bytes([octet]) + STUN[1:]
    engine.receive(data, server, CLIENT[0], 0.0)
    assert packets(engine) == ([(data, server, (CLIENT[0], 0))] if octet < 4 else [])
    is_quic = 80 <= octet < 128 or octet >= 192
    is_framed = 64 <= octet < 80
    assert engine.drops() == (0 if octet < 4 or is_quic or is_framed else 1, 0)
    # A channel number that nobody has bound.
    assert engine.relay_drops() == (1 if is_framed else 0, 0, 0)
    # The same from elsewhere, or to another address of ours, is not the relay's.
    engine.receive(data, ("203.0.113.1", 3479), CLIENT[0], 0.0)
    engine.receive(data, server, "192.0.2.77", 0.0)
    assert engine.relay_drops() == (1 if is_framed else 0, 0, 0)


def test_stun_of_a_peer_comes_and_goes_in_its_channel() -> None:
    engine = Pair().client.engine
    server = ("203.0.113.1", 3478)
    host = engine.add_relay(server, local=CLIENT[0])
    engine.send(STUN, PEER, host)
    assert engine.transmits() == []
    assert engine.relay_drops() == (0, 1, 0)
    engine.bind_channel(host, PEER, 0x4FFF)
    engine.send(STUN, PEER, host)
    assert engine.transmits() == [(channel_data(0x4FFF, STUN), CLIENT[0], server)]
    engine.receive(channel_data(0x4FFF, STUN), server, CLIENT[0], 0.0)
    assert packets(engine) == [(STUN, PEER, (host, 0))]
    engine.receive_relayed(host, PEER, STUN)
    assert packets(engine) == [(STUN, PEER, (host, 0))]
    # Padding is allowed (RFC 8656 §12.5), less than the length says is not.
    engine.receive(channel_data(0x4FFF, STUN) + bytes(3), server, CLIENT[0], 0.0)
    assert packets(engine) == [(STUN, PEER, (host, 0))]
    for short in (channel_data(0x4FFF, STUN)[:-1], b"\x4f\xff\x00", b"\x4f"):
        engine.receive(short, server, CLIENT[0], 0.0)
    assert packets(engine) == []
    assert engine.relay_drops() == (3, 1, 0)
    engine.unbind_channel(host, PEER)
    engine.receive(channel_data(0x4FFF, STUN), server, CLIENT[0], 0.0)
    engine.send(STUN, PEER, host)
    assert packets(engine) == []
    assert engine.relay_drops() == (4, 2, 0)


def test_a_channel_has_one_peer_and_a_peer_one_channel() -> None:
    engine = Pair().client.engine
    server, other = ("203.0.113.1", 3478), ("198.51.100.8", 8)
    host = engine.add_relay(server, local=CLIENT[0])

    def heard(channel: int) -> object:
        engine.receive(channel_data(channel, STUN), server, CLIENT[0], 0.0)
        return next((source for _, source, _ in packets(engine)), None)

    engine.bind_channel(host, PEER, 0x4000)
    engine.bind_channel(host, PEER, 0x4001)
    assert (heard(0x4000), heard(0x4001)) == (None, PEER)
    engine.bind_channel(host, other, 0x4001)
    assert heard(0x4001) == other
    engine.send(STUN, PEER, host)
    engine.send(STUN, other, host)
    assert engine.transmits() == [(channel_data(0x4001, STUN), CLIENT[0], server)]


def test_one_server_may_have_allocations_of_two_local_addresses() -> None:
    engine = Pair().client.engine
    server = ("203.0.113.1", 3478)
    hosts = [engine.add_relay(server, local=local) for local in ("192.0.2.1", "192.0.2.3")]
    for host, peer in zip(hosts, (PEER, SERVER), strict=True):
        engine.bind_channel(host, peer, 0x4000)
    for host, local, peer in zip(hosts, ("192.0.2.1", "192.0.2.3"), (PEER, SERVER), strict=True):
        engine.receive(channel_data(0x4000, STUN), server, local, 0.0)
        assert packets(engine) == [(STUN, peer, (host, 0))]


def test_what_is_no_relay_or_no_channel_is_refused() -> None:
    engine = Pair().client.engine
    host = engine.add_relay(("203.0.113.1", 3478))
    for channel in (0x3FFF, 0x5000):
        with pytest.raises(ValueError, match="channel"):
            engine.bind_channel(host, PEER, channel)
    with pytest.raises(ValueError, match="no such relay"):
        engine.bind_channel("192.0.2.1", PEER, 0x4000)
    # UDP has a socket's buffer to be full.
    with pytest.raises(ValueError, match="no such relay"):
        engine.set_relay_congested(host, True)
    for call in (engine.remove_relay, engine.add_relay):
        with pytest.raises((ValueError, TypeError)):
            call("turn.example")  # type: ignore[operator]


def test_a_flood_from_a_relays_server_changes_nothing() -> None:
    pair = RelayedPair()
    allocation = behind_relay(pair, pair.client)
    near, far = pair.connected_by(allocation.host)
    flow = Flow(pair, near, far, 2 * MIB)
    chance = random.Random(5)

    def garbage() -> bytes:
        noise = chance.randbytes(chance.choice((0, 1, 3, 4, 20, 1200, 65_000)))
        return chance.choice(
            (
                noise,
                channel_data(0x4000, noise),
                channel_data(chance.randrange(0x4000, 0x5000), noise),
                channel_data(0x4000, channel_data(0x4000, noise)),
                channel_data(0x4000, noise)[: chance.randrange(4, 30)],
            )
        )

    def done() -> bool:
        for _ in range(50):
            pair.client.engine.receive(garbage(), allocation.server, CLIENT[0], pair.now)
        flow.push()
        flow.pull()
        return flow.ended

    pair.drive(done)
    flow.check()
    assert pair.client.engine.relay_drops()[0] > 100
    assert not pair.client.seen(Event.Lost)
    assert [path["remote"] for path in near.paths()] == [SERVER]


def test_a_stream_is_read_wherever_it_is_cut_and_gives_whole_messages() -> None:
    engine = Pair().client.engine
    server = ("203.0.113.1", 443)
    host = engine.add_relay(server, stream=True)
    engine.bind_channel(host, PEER, 0x4001)
    longer = STUN[:2] + b"\x00\x04" + STUN[4:] + b"\x80\x22\x00\x00"
    data = channel_data(0x4001, STUN, padded=True) + STUN + channel_data(0x4001, b"\x7f" * 5, padded=True) + longer
    for cut in range(len(data) + 1):
        engine.receive_stream(host, data[:cut])
        engine.receive_stream(host, data[cut:])
        assert packets(engine) == [(STUN, PEER, (host, 0)), (STUN, server, (host, 0)), (longer, server, (host, 0))]
    for octet in data:
        engine.receive_stream(host, bytes([octet]))
    assert len(packets(engine)) == 3
    assert engine.relay_drops() == (0, 0, 0)
    engine.receive_stream(host, channel_data(0x4002, STUN, padded=True) + STUN)
    assert [source for _, source, _ in packets(engine)] == [server]
    assert engine.relay_drops() == (1, 0, 0)
    engine.send(STUN + b"x", PEER, host)
    engine.send(STUN, PEER, host)
    events, _, _, _ = engine.pump(0.0)
    framed = channel_data(0x4001, STUN + b"x", padded=True) + channel_data(0x4001, STUN, padded=True)
    (output,) = events
    assert isinstance(output, Event.RelayOutput)
    assert (output.host, output.data) == (host, framed)
    assert engine.transmits() == []


@pytest.mark.parametrize(
    "noise", [b"\x15\x03\x03\x00\x02\x02\x28\x00", b"\x80\x00\x00\x00", b"\x00\x01\x00\x03", b"\x50\x00\x00\x04"]
)
def test_after_what_is_no_message_a_stream_is_read_no_more(noise: bytes) -> None:
    engine = Pair().client.engine
    host = engine.add_relay(("203.0.113.1", 443), stream=True)
    engine.receive_stream(host, STUN + noise + STUN)
    engine.receive_stream(host, STUN)
    assert len(packets(engine)) == 1
    assert engine.relay_drops() == (2, 0, 0)


def test_a_congested_stream_costs_packets_and_no_bytes() -> None:
    pair = RelayedPair()
    allocation = behind_relay(pair, pair.client, stream=True)
    near, far = pair.connected_by(allocation.host)
    flow = Flow(pair, near, far, 4 * MIB)
    engine = pair.client.engine
    chance = random.Random(2)

    def done() -> bool:
        engine.set_relay_congested(allocation.host, chance.random() < 0.1)
        flow.push()
        flow.pull()
        return flow.ended

    pair.drive(done, within=60.0)
    flow.check()
    dropped = engine.relay_drops()[2]
    assert dropped > 0
    assert near.stats()["lost_packets"] >= dropped / 2
    # Checks are few, and are let through.
    engine.set_relay_congested(allocation.host, True)
    engine.send(STUN, SERVER, allocation.host)
    events, _, _, _ = engine.pump(pair.now)
    assert [event.data for event in events if isinstance(event, Event.RelayOutput)] == [
        channel_data(0x4000, STUN, padded=True)
    ]


def test_nat_traversal_knows_nothing_of_relays() -> None:
    pair = RelayedPair(TransportConfig(nat_traversal=True))
    ours, theirs = joined(pair)
    near, far = pair.connected_by(ours.host, theirs.relayed)
    for connection, allocation in ((near, ours), (far, theirs)):
        with pytest.raises(_native.NatTraversalRefused, match="relay"):
            connection.add_nat_traversal_address((allocation.host, 1))
    with pytest.raises(_native.NatTraversalRefused, match="relay"):
        far.add_nat_traversal_address(("fd71:7569:6365::99", 1))
    # Here a relay leads to the peer, and only there.
    far.add_nat_traversal_address(theirs.relayed)
    far.add_nat_traversal_address(SERVER)
    near.add_nat_traversal_address(CLIENT)
    pair.advance(0.2)
    before = ours.sent
    pair.wire.clear()
    assert set(near.initiate_nat_traversal_round()) == {theirs.relayed, SERVER}
    pair.advance(0.05)
    # Probes leave from sockets, the one to the relayed address too.
    assert {source for _, source, destination, _ in pair.wire if destination == theirs.relayed} == {CLIENT}
    pair.advance(5.0)
    assert not [destination for _, _, destination, _ in pair.wire if destination[0].startswith("fd71:")]
    assert ours.sent > before
    paths = [(path["local"], path["remote"]) for path in near.paths()]
    assert ((ours.host, 0), theirs.relayed) in paths
    assert (CLIENT, SERVER) in paths


def test_a_relayed_run_with_the_same_seeds_is_repeated_byte_for_byte() -> None:
    def run() -> str:
        pair = RelayedPair(seed=4)
        ours, theirs = joined(pair)
        stream = behind_relay(pair, pair.client, stream=True)
        chance = random.Random(6)
        pair.loses = lambda _side, _data: chance.random() < 0.02
        near, far = pair.connected_by(ours.host, theirs.relayed)
        pair.path(near, SERVER, stream.host)
        Flow(pair, near, far, MIB).run(within=20.0)
        assert stream.sent > 100
        return hashlib.sha256(repr(pair.wire).encode()).hexdigest()

    assert run() == run()


def test_a_retry_goes_back_through_the_relay() -> None:
    pair = RelayedPair()
    allocation = behind_relay(pair, pair.server)
    # So many handshakes are under way that the next client must prove its address (RFC 9000 §8.1.2).
    for _ in range(300):
        pair.client.engine.connect(SERVER, [ALPN], peer=public_key(SERVER_SEED), local=CLIENT[0])
    pair.cut = True
    pair.client.engine.pump(0.0)
    for data, _, _ in pair.client.engine.transmits():
        pair.server.engine.receive(data, CLIENT, SERVER[0], 0.0)
    pair.cut = True
    pair.client.engine.connect(allocation.relayed, [ALPN], peer=public_key(SERVER_SEED), local=CLIENT[0])
    pair.drive(lambda: bool(pair.client.seen(Event.Connected)))
    assert allocation.received > 2
