"""Connections and streams over loopback, through the public API."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time

import pytest

from quice import Address, Endpoint, Identity, Stream, TransportConfig, _native
from quice.errors import (
    BindError,
    ConnectTimeoutError,
    DatagramError,
    EndpointClosedError,
    HandshakeError,
    IdleTimeoutError,
    LocallyClosedError,
    NoServerError,
    PeerClosedError,
    StreamClosedError,
    StreamResetError,
    StreamStoppedError,
)
from tests.endpoint.conftest import ALPN, Pair


async def test_each_side_knows_the_others_proven_key(pair: Pair) -> None:
    assert pair.near.peer == pair.server.peer
    assert pair.far.peer == pair.client.peer
    assert pair.near.alpn == pair.far.alpn == ALPN


async def test_bytes_go_both_ways_on_one_stream(pair: Pair) -> None:
    stream = await pair.near.open_stream()
    sent = os.urandom(3_000_000)
    writing = asyncio.create_task(stream.write(sent))
    there = await pair.far.accept_stream()
    received = await there.readexactly(len(sent))
    await writing
    assert received == sent
    await there.write(memoryview(b"thanks"))
    there.finish()
    assert await stream.read() == b"thanks"
    assert await stream.read() == b""
    assert await stream.read() == b""


async def test_a_one_way_stream_goes_one_way(pair: Pair) -> None:
    stream = await pair.near.open_stream(unidirectional=True)
    await stream.write(b"hello")
    stream.finish()
    there = await pair.far.accept_stream()
    assert there.unidirectional
    with pytest.raises(StreamClosedError):
        await there.write(b"no")
    with pytest.raises(StreamClosedError):
        await stream.read()
    buffer = bytearray(16)
    assert await there.readinto(buffer) == 5
    assert buffer[:5] == b"hello"
    assert await there.readinto(buffer) == 0


@pytest.mark.parametrize("use", ["open", "write", "finish", "read", "priority", "send_datagram", "max_datagram_size"])
async def test_a_connection_closed_while_the_loop_was_busy_says_by_whom_at_once(pair: Pair, use: str) -> None:
    stream = await pair.near.open_stream()
    await stream.write(b"x")
    await pair.far.accept_stream()
    pair.far.close(7, "enough")
    pair.far._pump.flush()
    # The guardian takes in the peer's close, and the loop has no turn to hear of it.
    with pytest.raises(_native.ConnectionGone):
        for _ in range(1000):
            pair.near._native.max_datagram_size()
            time.sleep(0.01)
    assert not pair.near.is_closed
    with pytest.raises(PeerClosedError) as caught:
        match use:
            case "open":
                await pair.near.open_stream()
            case "write":
                await stream.write(b"y")
            case "finish":
                stream.finish()
            case "read":
                await stream.read()
            case "priority":
                stream.priority = 1
            case "send_datagram":
                pair.near.send_datagram(b"y")
            case "max_datagram_size":
                _ = pair.near.max_datagram_size
    assert (caught.value.code, caught.value.reason) == (7, "enough")


async def test_a_reset_reaches_the_reader_with_its_code(pair: Pair) -> None:
    stream = await pair.near.open_stream()
    await stream.write(b"x")
    there = await pair.far.accept_stream()
    stream.reset(42)
    with pytest.raises(StreamResetError) as caught:
        while await there.read():
            pass
    assert caught.value.code == 42
    with pytest.raises(StreamClosedError):
        await stream.write(b"y")


async def test_a_stop_reaches_the_writer_with_its_code(pair: Pair) -> None:
    stream = await pair.near.open_stream()
    await stream.write(b"x")
    (await pair.far.accept_stream()).stop(7)
    with pytest.raises(StreamStoppedError) as caught:
        while True:
            await stream.write(bytes(100_000))
    assert caught.value.code == 7


async def test_write_waits_while_nobody_reads_and_goes_on_when_somebody_does(pair: Pair) -> None:
    stream = await pair.near.open_stream()
    size = 80 << 20
    writing = asyncio.create_task(stream.write(bytes(size)))
    there = await pair.far.accept_stream()
    done, _ = await asyncio.wait([writing], timeout=1.0)
    assert not done
    # What is unread stays within the receiver's window, and what is unsent within the sender's.
    assert stream.bytes_written <= (32 + 16 << 20) + (1 << 20)
    received = 0
    while received < size:
        received += len(await there.read(1 << 20))
    await writing


async def test_a_cancelled_read_loses_nothing(pair: Pair) -> None:
    stream = await pair.near.open_stream()
    await stream.write(b"12345")
    there = await pair.far.accept_stream()
    reading = asyncio.create_task(there.readexactly(10))
    await asyncio.sleep(0.05)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await stream.write(b"67890")
    assert await there.readexactly(10) == b"1234567890"


async def test_a_cancelled_write_tells_how_far_it_came(pair: Pair) -> None:
    stream = await pair.near.open_stream()
    data = os.urandom(64 << 20)
    writing = asyncio.create_task(stream.write(data))
    there = await pair.far.accept_stream()
    await asyncio.sleep(0.3)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    stream.finish()
    received = bytearray()
    while chunk := await there.read(1 << 20):
        received += chunk
    assert len(received) == stream.bytes_written < len(data)
    assert received == data[: len(received)]


async def test_a_stream_that_ends_early_is_an_incomplete_read(pair: Pair) -> None:
    stream = await pair.near.open_stream()
    await stream.write(b"abc")
    stream.finish()
    there = await pair.far.accept_stream()
    with pytest.raises(asyncio.IncompleteReadError) as caught:
        await there.readexactly(4)
    assert caught.value.partial == b"abc"


async def test_streams_beyond_the_peers_limit_wait_for_one_to_end(pair: Pair) -> None:
    streams = [await pair.near.open_stream() for _ in range(256)]
    one_more = asyncio.create_task(pair.near.open_stream())
    for stream in streams:
        await stream.write(b"x")
        stream.finish()
    served = 0
    async for there in pair.far:
        assert await there.readexactly(1) == b"x"
        assert await there.read() == b""
        there.finish()
        served += 1
        if served == 256:
            break
    for stream in streams:
        assert await stream.read() == b""
    await asyncio.wait_for(one_more, 5)


async def test_a_request_and_its_answer_take_one_datagram_each(pair: Pair) -> None:
    requests = 50

    async def answer(stream: Stream) -> None:
        await stream.write(await stream.read())
        stream.finish()

    async def serve() -> None:
        answers = set()
        async for stream in pair.far:
            answers.add(asyncio.create_task(answer(stream)))

    server = asyncio.create_task(serve())
    before = pair.near.stats
    for _ in range(requests):
        stream = await pair.near.open_stream()
        await stream.write(b"request")
        stream.finish()
        assert await stream.readexactly(7) == b"request"
    server.cancel()
    after = pair.near.stats
    # A few more when the machine is slow: timers of the acknowledgements, and probes of the path's MTU.
    assert after.sent_packets - before.sent_packets <= requests * 1.25
    assert after.received_datagrams - before.received_datagrams <= requests * 1.25


async def test_a_forgotten_stream_is_given_up_on_both_sides(pair: Pair) -> None:
    stream = await pair.near.open_stream()
    await stream.write(b"x")
    there = await pair.far.accept_stream()
    assert await there.readexactly(1) == b"x"
    del stream
    gc.collect()
    assert await asyncio.wait_for(there.read(), 5) == b""
    with pytest.raises(StreamStoppedError):
        while True:
            await asyncio.wait_for(there.write(bytes(100_000)), 5)


async def test_priorities_can_be_set(pair: Pair) -> None:
    stream = await pair.near.open_stream()
    assert stream.priority == 0
    stream.priority = 5
    assert stream.priority == 5


async def test_datagrams_arrive_and_too_large_ones_are_refused(pair: Pair) -> None:
    receiving = asyncio.create_task(pair.far.receive_datagram())
    assert pair.near.send_datagram(b"ping")
    assert await asyncio.wait_for(receiving, 5) == b"ping"
    with pytest.raises(DatagramError):
        pair.near.send_datagram(bytes(pair.near.max_datagram_size + 1))


async def test_the_peers_close_carries_its_code_and_reason_to_every_wait(pair: Pair) -> None:
    stream = await pair.near.open_stream()
    waits = [
        asyncio.create_task(wait) for wait in (stream.read(), pair.near.accept_stream(), pair.near.receive_datagram())
    ]
    await asyncio.sleep(0.05)
    pair.far.close(9, "enough")
    for result in await asyncio.gather(*waits, return_exceptions=True):
        assert isinstance(result, PeerClosedError)
        assert (result.code, result.reason) == (9, "enough")
    await pair.near.wait_closed()
    assert pair.near.is_closed
    with pytest.raises(LocallyClosedError):
        await pair.far.open_stream()


async def test_paths_and_stats_tell_of_the_connection(pair: Pair) -> None:
    (path,) = pair.near.paths
    assert path.kind.value == "lan"
    assert path.remote == Address("127.0.0.1", pair.server.port)
    assert path.local == Address("127.0.0.1", pair.client.port)
    assert 0 < path.rtt < 1
    assert pair.near.stats.sent_datagrams > 0


async def test_another_peer_than_the_one_asked_for_fails_the_handshake(pair: Pair) -> None:
    other = Identity.generate().peer
    with pytest.raises(HandshakeError):
        await pair.client.connect(other, alpn=ALPN, address=Address("127.0.0.1", pair.server.port))


async def test_an_alpn_that_the_peer_does_not_speak_fails_the_handshake(pair: Pair) -> None:
    with pytest.raises(HandshakeError):
        await pair.client.connect(pair.server.peer, alpn="other/1", address=Address("127.0.0.1", pair.server.port))


async def test_nobody_at_the_address_times_out(pair: Pair) -> None:
    with pytest.raises(ConnectTimeoutError):
        await pair.client.connect(pair.server.peer, alpn=ALPN, address=Address("127.0.0.1", 9), timeout=0.3)


async def test_without_server_or_address_there_is_nobody_to_ask(pair: Pair) -> None:
    with pytest.raises(NoServerError):
        await pair.client.connect(pair.server.peer, alpn=ALPN)


async def test_a_taken_port_is_a_bind_error(pair: Pair) -> None:
    with pytest.raises(BindError):
        await Endpoint.bind(host="127.0.0.1", port=pair.server.port)


async def test_closing_the_endpoint_ends_connections_and_accept(pair: Pair) -> None:
    accepting = asyncio.create_task(pair.server.accept())
    await asyncio.sleep(0)
    await pair.server.close(3, "bye")
    with pytest.raises(EndpointClosedError):
        await accepting
    await asyncio.wait_for(pair.near.wait_closed(), 5)
    with pytest.raises(EndpointClosedError):
        await pair.server.connect(pair.client.peer, alpn=ALPN)


async def vanish(endpoint: Endpoint) -> None:
    """What a crash does: nobody is told."""
    await endpoint._surroundings.close()
    endpoint._pump.close()


async def test_a_peer_that_falls_silent_is_an_idle_timeout() -> None:
    config = TransportConfig(idle_timeout=0.5)
    async with Endpoint.bind(host="127.0.0.1", config=config) as client:
        server = await Endpoint.bind(alpns=[ALPN], host="127.0.0.1", config=config)
        connection = await client.connect(server.peer, alpn=ALPN, address=Address("127.0.0.1", server.port))
        await vanish(server)
        stream = await connection.open_stream()
        with pytest.raises(IdleTimeoutError):
            await asyncio.wait_for(stream.read(), 5)


async def test_qlog_is_written_on_request(tmp_path: os.PathLike[str]) -> None:
    config = TransportConfig(qlog_dir=tmp_path)
    async with (
        Endpoint.bind(alpns=[ALPN], host="127.0.0.1") as server,
        Endpoint.bind(host="127.0.0.1", config=config) as client,
    ):
        await client.connect(server.peer, alpn=ALPN, address=Address("127.0.0.1", server.port))
    assert any(os.path.getsize(os.path.join(tmp_path, name)) for name in os.listdir(tmp_path))


async def test_dropping_everything_in_any_order_leaves_no_thread_and_no_descriptor() -> None:
    def resources() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    async def once(order: int) -> None:
        server = await Endpoint.bind(alpns=[ALPN], host="127.0.0.1")
        client = await Endpoint.bind(host="127.0.0.1")
        address = Address("127.0.0.1", server.port)
        connection = await client.connect(server.peer, alpn=ALPN, address=address)
        stream = await connection.open_stream()
        await stream.write(b"x")
        things = [server, client, connection, stream]
        for thing in (server, client) if order else (client, server):
            await vanish(thing)
        del server, client, connection, stream
        while things:
            things.pop(order and len(things) // 2)
            gc.collect()

    await once(0)
    before = resources()
    for order in (0, 1, 0, 1):
        await once(order)
    # The guardian threads end within their grace time.
    while any(now > then for now, then in zip(resources(), before, strict=True)):
        await asyncio.sleep(0.01)


FORGETFUL = """
import asyncio
from quice import Address, Endpoint

async def main():
    far = await Endpoint.bind(host="127.0.0.1", alpns=["test/1"])
    near = await Endpoint.bind(host="127.0.0.1")
    connection = await near.connect(far.peer, alpn="test/1", address=Address("127.0.0.1", far.port))
    stream = await connection.open_stream()
    await stream.write(b"there is something to be said")
    return far, near, connection, stream

kept = list(asyncio.run(main()))
kept.pop()
"""


def test_a_stream_that_is_collected_after_its_loop_has_ended_says_nothing() -> None:
    """As where a program fails, and leaves its endpoint open."""
    done = subprocess.run([sys.executable, "-c", FORGETFUL], capture_output=True, text=True, check=True, timeout=30)
    assert "Stream.__del__" not in done.stderr
