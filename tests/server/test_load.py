"""What one peer can do to the others: nothing."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from websockets.exceptions import ConnectionClosed

from quice.identity import Identity
from quice.server import Server
from quice.server import rendezvous as rendezvous_module
from quice.server import websocket as websocket_module
from quice.server.websocket import MAX_BUFFER
from quice.signal import protocol
from quice.signal.protocol import Delivered, Undeliverable
from tests.server.peers import RawPeer, raw_peer, until


@contextlib.asynccontextmanager
async def deaf_peer(server: Server, identity: Identity | None = None) -> AsyncIterator[RawPeer]:
    """A registered peer that has stopped reading, and has little room for what it does not read."""
    channel = socket.socket()
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    channel.setblocking(False)
    host, port = server.url.removeprefix("ws://").split(":")
    await asyncio.get_running_loop().sock_connect(channel, (host, int(port)))
    async with raw_peer(server, identity, sock=channel, ping_interval=None) as peer:
        await peer.registered()
        peer.socket.transport.pause_reading()
        try:
            yield peer
        finally:
            peer.socket.transport.abort()


async def fill(server: Server, sender: RawPeer, deaf: RawPeer) -> int:
    """Send to a peer that does not read, until the server takes no more for it; returns how many it took."""
    sent = 0
    answer = asyncio.ensure_future(sender.receive())
    while not answer.done():
        await sender.deliver(deaf.peer, bytes(protocol.MAX_BODY))
        sent += 1
        await asyncio.sleep(0)
    assert isinstance(await answer, Undeliverable)
    return sent


async def read_until(peer: RawPeer, body: bytes) -> None:
    """Read until a delivery has this body."""
    while True:
        message = await peer.receive()
        if isinstance(message, Delivered) and message.body == body:
            return


def buffered(server: Server) -> list[int]:
    return [websocket.transport.get_write_buffer_size() for websocket in server._connections]


@pytest.fixture
def unlimited(monkeypatch: pytest.MonkeyPatch) -> None:
    """No limit to how fast a peer may send."""
    monkeypatch.setattr(rendezvous_module, "_BURST", 1e9)


@pytest.mark.usefixtures("unlimited")
async def test_a_peer_that_does_not_read_holds_up_nobody_and_costs_a_fixed_amount(server: Server) -> None:
    async with raw_peer(server) as one, raw_peer(server) as other, deaf_peer(server) as deaf:
        await one.registered()
        await other.registered()
        await fill(server, one, deaf)
        assert MAX_BUFFER - protocol.MAX_FRAME <= max(buffered(server)) <= MAX_BUFFER
        for _ in range(100):
            await other.deliver(deaf.peer, bytes(protocol.MAX_BODY))
            assert isinstance(await other.receive(), Undeliverable)
        await other.deliver(other.peer, b"still served")
        assert await other.body() == b"still served"
        assert max(buffered(server)) <= MAX_BUFFER


@pytest.mark.usefixtures("unlimited")
async def test_a_peer_that_reads_again_gets_messages_again(server: Server) -> None:
    async with raw_peer(server) as one, deaf_peer(server) as slow:
        await one.registered()
        await fill(server, one, slow)
        slow.socket.transport.resume_reading()
        reading = asyncio.create_task(read_until(slow, b"the last one"))
        await until(lambda: max(buffered(server)) == 0)
        await one.deliver(slow.peer, b"the last one")
        await reading


@pytest.mark.usefixtures("unlimited")
async def test_a_peer_that_does_not_answer_pings_is_dropped_however_much_waits_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket_module, "KEEPALIVE", 0.3)
    monkeypatch.setattr(websocket_module, "CLOSE_TIMEOUT", 0.2)
    async with Server("127.0.0.1", 0, 0) as server, raw_peer(server) as one:
        await one.registered()
        async with deaf_peer(server) as deaf:
            await fill(server, one, deaf)
            await until(lambda: len(server.rendezvous) == 1)
            await one.deliver(one.peer, b"still served")
            await read_until(one, b"still served")


async def test_all_of_many_peers_are_pinged_though_not_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_module, "KEEPALIVE", 0.3)
    monkeypatch.setattr(websocket_module, "_AT_ONCE", 2)
    async with Server("127.0.0.1", 0, 0) as server, contextlib.AsyncExitStack() as stack:
        for number in range(7):
            # Every second one has stopped, and answers nothing.
            peer = await stack.enter_async_context(raw_peer(server, ping_interval=None))
            await peer.registered()
            if number % 2:
                peer.socket.transport.pause_reading()
        await until(lambda: server.connections == 4)
        await asyncio.sleep(0.6)
        assert len(server.rendezvous) == 4


@pytest.mark.usefixtures("unlimited")
async def test_a_peer_that_does_not_read_can_register_again_at_once(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = Identity.generate()
    async with raw_peer(server) as one, deaf_peer(server, identity) as deaf:
        await one.registered()
        await fill(server, one, deaf)
        async with raw_peer(server, identity) as again:
            await again.registered()
            await one.deliver(identity.peer, b"hello")
            assert await again.body() == b"hello"


async def test_a_peer_that_sends_too_fast_is_slowed_down_and_loses_nothing(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous_module, "_RATE", 200.0)
    monkeypatch.setattr(rendezvous_module, "_BURST", 10.0)
    loop = asyncio.get_running_loop()
    async with raw_peer(server) as one, raw_peer(server) as other:
        await one.registered()
        await other.registered()
        started = loop.time()
        for number in range(100):
            await one.deliver(other.peer, bytes([number]))
        bodies = [await other.body() for _ in range(10)]
        burst = loop.time() - started
        bodies += [await other.body() for _ in range(90)]
        # 90 messages beyond the burst, at 200 a second.
        assert loop.time() - started >= 0.44
        assert burst < 0.2
        assert bodies == [bytes([number]) for number in range(100)]


async def test_a_peer_that_is_slowed_down_slows_nobody_else(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous_module, "_RATE", 2.0)
    monkeypatch.setattr(rendezvous_module, "_BURST", 2.0)
    async with raw_peer(server) as fast, raw_peer(server) as other:
        await fast.registered()
        await other.registered()
        for _ in range(50):
            await fast.deliver(fast.peer, b"")
        await other.deliver(other.peer, b"at once")
        assert await asyncio.wait_for(other.body(), 0.4) == b"at once"
        with contextlib.suppress(ConnectionClosed):
            await fast.socket.close()
