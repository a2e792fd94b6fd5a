"""Two engines without a socket or a clock: handshake, streams, datagrams, the end of a connection."""

from __future__ import annotations

import os
import random
from functools import partial
from pathlib import Path

import pytest

from quice import TransportConfig, _native
from quice._native import Event, Loss
from tests.engine.flow import Flow
from tests.engine.pair import ALPN, CLIENT_SEED, DELAY, SERVER_SEED, Pair, public_key


def opened(connection: _native.Connection, *, unidirectional: bool = False) -> int:
    stream = connection.open(unidirectional=unidirectional)
    assert stream is not None
    return stream


def read_to_end(pair: Pair, connection: _native.Connection, stream: int) -> bytes:
    content = bytearray()

    def done() -> bool:
        while chunk := connection.read(stream, 1 << 16):
            content.extend(chunk)
        return chunk == b""

    pair.drive(done)
    return bytes(content)


def lost(pair: Pair) -> tuple[Event.Lost, Event.Lost]:
    """The one loss of each side."""
    (near,), (far,) = pair.client.seen(Event.Lost), pair.server.seen(Event.Lost)
    return near, far


def test_the_handshake_proves_each_side_to_the_other() -> None:
    pair = Pair()
    pair.connected()
    (near,), (far,) = pair.client.seen(Event.Connected), pair.server.seen(Event.Connected)
    assert (near.accepted, far.accepted) == (False, True)
    assert near.peer == public_key(SERVER_SEED)
    assert far.peer == public_key(CLIENT_SEED)
    assert near.alpn == far.alpn == ALPN


def test_the_client_is_connected_after_one_round_trip() -> None:
    pair = Pair(delay=0.05)
    pair.connect()
    pair.advance(0.09)
    assert not pair.client.seen(Event.Connected)
    pair.advance(0.02)
    assert pair.client.seen(Event.Connected)


def test_a_lost_first_packet_is_sent_again() -> None:
    pair = Pair()
    pair.loses = lambda sender, _data: sender is pair.client and sender.sent == 1
    pair.connected()
    # RFC 9002 §6.2.2: without a sample of the round-trip time, the first probe goes after three times the one
    # that is assumed, which is 100 ms here, not 333.
    assert 0.28 < pair.now < 0.36


def test_another_key_than_the_one_asked_for_fails_on_both_sides() -> None:
    pair = Pair()
    pair.connect(peer=public_key(CLIENT_SEED))
    pair.drive(lambda: bool(pair.client.seen(Event.Drained) and pair.server.seen(Event.Drained)))
    near, far = lost(pair)
    assert (near.loss, far.loss) == (Loss.Failed, Loss.ClosedByPeer)
    # RFC 9001 §4.8: 0x100 and the TLS alert, here bad_certificate.
    assert near.code == far.code == 0x100 + 42
    assert not pair.client.seen(Event.Connected)
    assert not pair.server.seen(Event.Connected)


def test_an_alpn_that_the_server_does_not_name_fails_before_there_is_a_connection() -> None:
    pair = Pair()
    pair.connect(alpn=b"other/1")
    pair.drive(lambda: bool(pair.client.seen(Event.Drained)))
    (near,) = pair.client.seen(Event.Lost)
    # RFC 7301 §3.2: no_application_protocol.
    assert (near.loss, near.code) == (Loss.ClosedByPeer, 0x100 + 120)
    assert not pair.client.seen(Event.Connected)
    assert not pair.server.events


def test_the_server_chooses_among_its_alpns_what_the_client_asks_for() -> None:
    pair = Pair(alpns=(b"a", b"b", b"c"))
    pair.connect(alpn=b"b")
    pair.drive(lambda: bool(pair.server.seen(Event.Connected)))
    (far,) = pair.server.seen(Event.Connected)
    assert far.alpn == b"b"


def test_an_endpoint_without_alpn_accepts_nobody() -> None:
    pair = Pair(alpns=())
    pair.connect()
    pair.advance(5.0)
    assert not pair.server.events
    assert not pair.client.seen(Event.Connected)


@pytest.mark.parametrize("unidirectional", [True, False])
def test_a_stream_carries_bytes_and_its_end(unidirectional: bool) -> None:
    pair = Pair()
    near, far = pair.connected()
    content = random.Random(2).randbytes(300_000)
    stream = opened(near, unidirectional=unidirectional)
    assert near.write(stream, memoryview(b"##" + content), 2) == len(content)
    near.finish(stream)
    pair.drive(lambda: bool(pair.server.seen(Event.Opened)))
    assert [event.stream for event in pair.server.seen(Event.Opened)] == [stream]
    assert read_to_end(pair, far, stream) == content
    # The sending half is over when the peer has acknowledged all of it.
    pair.advance(1.0)
    with pytest.raises(_native.StreamClosed):
        near.priority(stream)
    with pytest.raises(_native.StreamClosed):
        far.read(stream, 1)
    if unidirectional:
        with pytest.raises(_native.StreamClosed):
            far.write(stream, b"x", 0)
        with pytest.raises(_native.StreamClosed):
            near.read(stream, 1)
    else:
        assert far.write(stream, b"thanks", 0) == 6
        far.finish(stream)
        assert read_to_end(pair, near, stream) == b"thanks"


def test_readable_follows_a_read_that_found_nothing_and_only_that() -> None:
    pair = Pair()
    near, far = pair.connected()
    stream = opened(near)
    near.write(stream, b"one", 0)
    pair.drive(lambda: bool(pair.server.seen(Event.Opened)))
    assert far.read(stream, 100) == b"one"
    near.write(stream, b"two", 0)
    pair.advance(1.0)
    assert not pair.server.take(Event.Readable)
    assert far.read(stream, 100) == b"two"
    assert far.read(stream, 100) is None
    near.write(stream, b"three", 0)
    pair.advance(1.0)
    assert [event.stream for event in pair.server.take(Event.Readable)] == [stream]
    assert far.read(stream, 2) == b"th"
    buffer = bytearray(2)
    assert far.readinto(stream, buffer) == 2
    assert buffer == b"re"


def test_a_reset_tells_its_code_to_the_reader() -> None:
    pair = Pair()
    near, far = pair.connected()
    stream = opened(near)
    near.write(stream, b"x", 0)
    pair.drive(lambda: bool(pair.server.seen(Event.Opened)))
    assert far.read(stream, 10) == b"x"
    assert far.read(stream, 10) is None
    near.reset(stream, 2**62 - 1)
    pair.drive(lambda: bool(pair.server.seen(Event.Readable)))
    with pytest.raises(_native.StreamReset) as caught:
        far.read(stream, 10)
    assert caught.value.args == (2**62 - 1,)
    with pytest.raises(_native.StreamClosed):
        near.write(stream, b"y", 0)


def test_a_stop_tells_its_code_to_the_writer() -> None:
    pair = Pair()
    near, far = pair.connected()
    stream = opened(near)
    near.write(stream, b"x", 0)
    pair.drive(lambda: bool(pair.server.seen(Event.Opened)))
    far.stop(stream, 7)
    pair.drive(lambda: bool(pair.client.seen(Event.Stopped)))
    (stopped,) = pair.client.seen(Event.Stopped)
    assert (stopped.stream, stopped.code) == (stream, 7)
    with pytest.raises(_native.StreamStopped) as caught:
        near.write(stream, b"y", 0)
    assert caught.value.args == (7,)
    with pytest.raises(_native.StreamClosed):
        far.read(stream, 1)


def test_streams_beyond_the_peers_limit_come_free_when_one_is_over() -> None:
    pair = Pair(server_config=TransportConfig(max_streams=2))
    near, far = pair.connected()
    streams = [opened(near, unidirectional=True) for _ in range(2)]
    assert near.open(unidirectional=True) is None
    for stream in streams:
        near.write(stream, b"x", 0)
        near.finish(stream)
    pair.drive(lambda: len(pair.server.seen(Event.Opened)) == 2)
    for stream in streams:
        assert read_to_end(pair, far, stream) == b"x"
    pair.drive(lambda: bool(pair.client.seen(Event.StreamsAvailable)))
    assert pair.client.seen(Event.StreamsAvailable)[0].unidirectional
    assert near.open(unidirectional=True) is not None


def test_streams_that_are_over_but_not_read_count_among_those_the_peer_may_have() -> None:
    pair = Pair(server_config=TransportConfig(max_streams=4))
    near, far = pair.connected()
    streams = [opened(near, unidirectional=True) for _ in range(4)]
    for stream in streams:
        near.finish(stream)
    pair.advance(1.0)
    # RFC 9000 §4.6: else a peer could fill our memory with streams that hold no byte.
    assert near.open(unidirectional=True) is None
    for stream in streams:
        assert read_to_end(pair, far, stream) == b""
    pair.drive(lambda: bool(pair.client.seen(Event.StreamsAvailable)))
    assert near.open(unidirectional=True) is not None


def test_the_stream_of_higher_priority_goes_first_though_written_last() -> None:
    pair = Pair()
    near, far = pair.connected()
    size = 4 << 20
    flows = [Flow(pair, near, far, size) for _ in range(3)]
    for flow, priority in zip(flows, (0, -5, 5), strict=True):
        near.set_priority(flow.stream, priority)
        assert near.priority(flow.stream) == priority
        flow.push()
    order: list[Flow] = []

    def done() -> bool:
        for flow in flows:
            flow.push()
            flow.pull()
            if flow.ended and flow not in order:
                order.append(flow)
        return len(order) == len(flows)

    pair.drive(done)
    assert order == [flows[2], flows[0], flows[1]]
    for flow in flows:
        flow.check()


def test_datagrams_go_both_ways() -> None:
    pair = Pair()
    near, far = pair.connected()
    # Until the search for the largest packet is over, the largest datagram grows.
    pair.advance(1.0)
    assert far.receive_datagram() is None
    assert near.send_datagram(b"ping")
    pair.drive(lambda: bool(pair.server.seen(Event.DatagramReceived)))
    assert far.receive_datagram() == b"ping"
    assert near.receive_datagram() is None
    largest = far.max_datagram_size()
    assert largest is not None
    assert far.send_datagram(bytes(largest))
    pair.drive(lambda: bool(pair.client.seen(Event.DatagramReceived)))
    assert near.receive_datagram() == bytes(largest)
    with pytest.raises(_native.DatagramRefused):
        far.send_datagram(bytes(largest + 1))


def test_datagrams_beyond_the_buffer_wait_until_some_are_sent() -> None:
    pair = Pair(TransportConfig(datagram_buffer=10_000))
    near, _ = pair.connected()
    sent = 0
    while near.send_datagram(bytes(1000)):
        sent += 1
    assert 1 <= sent <= 10
    pair.drive(lambda: bool(pair.client.seen(Event.DatagramsUnblocked)))
    assert near.send_datagram(bytes(1000))


def test_a_peer_without_datagrams_is_sent_none() -> None:
    pair = Pair(server_config=TransportConfig(datagram_buffer=0))
    near, _ = pair.connected()
    assert near.max_datagram_size() is None
    with pytest.raises(_native.DatagramRefused):
        near.send_datagram(b"x")


def test_a_close_carries_its_code_and_reason_and_drains_both_sides() -> None:
    pair = Pair()
    near, far = pair.connected()
    far.close(2**62 - 1, "gut so – 結".encode())
    pair.drive(lambda: bool(pair.client.seen(Event.Lost)))
    (event,) = pair.client.seen(Event.Lost)
    assert (event.loss, event.code, event.reason) == (Loss.ClosedByApplication, 2**62 - 1, "gut so – 結")
    assert event.connection == near.id
    pair.drive(lambda: bool(pair.client.seen(Event.Drained) and pair.server.seen(Event.Drained)))
    # Who closed knows it already.
    assert not pair.server.seen(Event.Lost)
    for connection in (near, far):
        for use in (
            partial(connection.open, unidirectional=True),
            partial(connection.write, 0, b"x", 0),
            partial(connection.read, 0, 1),
            partial(connection.close, 0, b""),
            connection.stats,
            connection.paths,
        ):
            with pytest.raises(_native.ConnectionGone):
                use()
    # RFC 9000 §10.2: the closing period lasts three probe timeouts, and then nothing is left to wait for.
    assert pair.now < 1.0
    assert pair.client.due is None
    assert pair.server.due is None


@pytest.mark.parametrize("closer", ["we", "the peer"])
def test_a_closed_connection_refuses_at_once_what_cannot_happen_any_more(closer: str) -> None:
    pair = Pair()
    near, far = pair.connected()
    stream = opened(near, unidirectional=False)
    near.write(stream, b"x", 0)
    pair.drive(lambda: bool(pair.server.seen(Event.Opened)))
    far.write(stream, b"answer", 0)
    far.send_datagram(b"word")
    pair.advance(0.1)
    if closer == "we":
        near.close(7, b"")
    else:
        far.close(7, b"")
        pair.drive(lambda: bool(pair.client.seen(Event.Lost)))
    assert not pair.client.seen(Event.Drained)
    # What had come before is still there.
    assert near.read(stream, 100) == b"answer"
    assert near.receive_datagram() == b"word"
    for use in (
        partial(near.open, unidirectional=True),
        partial(near.open, unidirectional=False),
        partial(near.read, stream, 1),
        partial(near.readinto, stream, bytearray(1)),
        partial(near.write, stream, b"x", 0),
        partial(near.finish, stream),
        partial(near.reset, stream, 0),
        partial(near.stop, stream, 0),
        partial(near.priority, stream),
        partial(near.set_priority, stream, 1),
        partial(near.send_datagram, b"x"),
        near.receive_datagram,
        near.max_datagram_size,
    ):
        with pytest.raises(_native.ConnectionGone):
            use()
    assert near.stats()["sent_datagrams"] == pair.client.sent
    assert len(near.paths()) == 1
    near.close(0, b"")


def test_a_handle_of_a_drained_connection_never_reaches_its_successor() -> None:
    pair = Pair()
    first, _ = pair.connected()
    first.close(0, b"")
    pair.drive(lambda: bool(pair.client.seen(Event.Drained) and pair.server.seen(Event.Drained)))
    for side in (pair.client, pair.server):
        side.events.clear()
    second, _ = pair.connected()
    assert first.id != second.id
    with pytest.raises(_native.ConnectionGone):
        first.close(1, b"")
    assert second.open(unidirectional=True) is not None


def test_a_silent_peer_is_an_idle_timeout_at_its_time() -> None:
    pair = Pair(TransportConfig(idle_timeout=3.0, keep_alive=1000.0))
    pair.connected()
    pair.advance(1.0)
    pair.loses = lambda _sender, _data: True
    pair.drive(lambda: bool(pair.client.seen(Event.Lost) and pair.server.seen(Event.Lost)))
    assert [event.loss for event in lost(pair)] == [Loss.TimedOut, Loss.TimedOut]
    assert 3.0 <= pair.now < 3.5


def test_the_smaller_idle_timeout_of_both_counts() -> None:
    pair = Pair(
        TransportConfig(idle_timeout=60.0, keep_alive=1000.0),
        server_config=TransportConfig(idle_timeout=2.0, keep_alive=1000.0),
    )
    pair.connected()
    pair.drive(lambda: bool(pair.client.seen(Event.Lost)))
    assert 2.0 <= pair.now < 2.5


def test_keep_alive_keeps_an_idle_connection_for_hours() -> None:
    pair = Pair(TransportConfig(idle_timeout=3.0))
    near, far = pair.connected()
    before = pair.client.sent + pair.server.sent
    pair.advance(6 * 3600.0)
    assert not pair.client.seen(Event.Lost)
    assert not pair.server.seen(Event.Lost)
    # A ping each second, with its acknowledgement, and not much more.
    assert pair.client.sent + pair.server.sent - before < 3 * 6 * 3600
    flow = Flow(pair, near, far, 100_000)
    flow.run(within=2.0)
    flow.check()


def test_nobody_at_the_other_end_times_out() -> None:
    pair = Pair(TransportConfig(idle_timeout=5.0))
    pair.loses = lambda _sender, _data: True
    pair.connect()
    pair.drive(lambda: bool(pair.client.seen(Event.Lost)))
    (event,) = pair.client.seen(Event.Lost)
    assert event.loss is Loss.TimedOut
    assert 5.0 <= pair.now < 5.5
    # RFC 9000 §8.1 and RFC 9002 §6.2.1: each probe waits twice as long as the one before.
    assert pair.client.sent < 20


def test_paths_and_stats_are_those_of_the_link() -> None:
    pair = Pair()
    near, far = pair.connected()
    Flow(pair, near, far, 1 << 20).run(within=5.0)
    (path,) = near.paths()
    assert path["remote"] == pair.server.address
    assert path["rtt"] == pytest.approx(2 * DELAY, rel=0.3)
    stats = near.stats()
    assert stats["sent_bytes"] > 1 << 20
    assert stats["sent_datagrams"] == pair.client.sent
    assert stats["lost_packets"] == 0


@pytest.mark.parametrize("octet", range(256))
def test_the_first_octet_says_which_protocol_a_datagram_belongs_to(octet: int) -> None:
    # RFC 9443 §3: the packet is for the layer above, for QUIC, or for nobody here.
    pair = Pair()
    # A STUN header with no attribute: RFC 8489 §5.
    data = bytes([octet]) + bytes(3) + b"\x21\x12\xa4\x42" + bytes(12)
    pair.server.engine.receive(data, ("203.0.113.9", 9), pair.server.address[0], 0.0)
    events, _, _, _ = pair.server.engine.pump(0.0)
    packets = [(event.data, event.source) for event in events if isinstance(event, Event.Packet)]
    assert packets == ([(data, ("203.0.113.9", 9))] if octet < 4 else [])
    quic = 64 <= octet < 128 or octet >= 192
    assert pair.server.engine.drops() == (0 if octet < 4 or quic else 1, 0)


def test_a_quic_datagram_beyond_what_peers_are_told_is_dropped() -> None:
    # RFC 9000 §18.2: max_udp_payload_size.
    pair = Pair()
    for size in (1472, 1473, 65_507):
        data = b"\xc0" + bytes(size - 1)
        pair.server.engine.receive(data, ("203.0.113.9", 9), pair.server.address[0], 0.0)
    assert pair.server.engine.drops() == (2, 0)


def test_strange_datagrams_in_a_transfer_change_nothing() -> None:
    pair = Pair()
    near, far = pair.connected()
    flow = Flow(pair, near, far, 4 << 20)
    chance = random.Random(3)
    recorded: list[bytes] = []

    def record(_sender: object, data: bytes) -> bool:
        recorded.append(data)
        return False

    def mutated() -> bytes:
        data = bytearray(chance.choice(recorded))
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        return bytes(data[: chance.randrange(len(data) + 1)])

    def noise() -> bytes:
        return chance.randbytes(chance.choice((0, 1, 20, 1200, 65_507)))

    forged = 0

    def done() -> bool:
        nonlocal forged
        for _ in range(100):
            data = chance.choice((mutated, noise))()
            for side, other in ((pair.client, pair.server), (pair.server, pair.client)):
                source = chance.choice((other.address, ("203.0.113.9", 9)))
                forged += len(data) if source != other.address else 0
                side.engine.receive(data, source, side.address[0], pair.now)
        flow.push()
        flow.pull()
        return flow.ended

    pair.loses = record
    near.send_datagram(b"x")
    pair.drive(lambda: bool(recorded))
    pair.drive(done)
    flow.check()
    for side in (pair.client, pair.server):
        assert not side.seen(Event.Lost)
        assert len(side.seen(Event.Connected)) == 1
    # RFC 9000 §8.1: who has not proven its address gets at most three times what it sent.
    assert sum(len(data) for data, _ in pair.astray) <= 3 * forged


def test_a_qlog_is_written_for_each_connection_when_asked_for(tmp_path: Path) -> None:
    pair = Pair(TransportConfig(qlog_dir=tmp_path), server_config=TransportConfig())
    near, far = pair.connected()
    Flow(pair, near, far, 100_000).run(within=5.0)
    near.close(0, b"")
    pair.drive(lambda: bool(pair.client.seen(Event.Drained)))
    (log,) = tmp_path.iterdir()
    # RFC 7464: a text sequence, each record after a record separator.
    records = log.read_bytes().split(b"\x1e")
    assert records[0] == b""
    assert len(records) > 100
    assert any(b"packet_received" in record for record in records)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in (
        TransportConfig(idle_timeout=0.0),
        TransportConfig(idle_timeout=-1.0),
        TransportConfig(keep_alive=float("nan")),
        TransportConfig(stream_window=2**62),
        TransportConfig(connection_window=2**62),
    ):
        with pytest.raises(ValueError, match="out of range"):
            Pair(wrong)


def test_a_host_that_is_no_address_is_refused() -> None:
    pair = Pair()
    with pytest.raises(ValueError, match="example"):
        pair.client.engine.connect(("example.com", 1), [ALPN], peer=os.urandom(32))


def test_giving_up_a_stream_says_whether_the_peer_is_to_be_told() -> None:
    pair = Pair()
    near, far = pair.connected()
    over, open_still = opened(near, unidirectional=False), opened(near, unidirectional=False)
    for stream in (over, open_still):
        near.write(stream, b"request", 0)
    near.finish(over)
    pair.drive(lambda: len(pair.server.seen(Event.Opened)) == 2)
    for stream in (over, open_still):
        far.write(stream, b"answer", 0)
    far.finish(over)
    pair.advance(1.0)
    assert near.release(open_still)
    assert read_to_end(pair, near, over) == b"answer"
    assert not near.release(over)
    assert not near.release(over)
