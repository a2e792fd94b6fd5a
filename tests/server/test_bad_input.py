"""Everything a stranger can send, at a server that goes on serving: no exception, and nothing in the log."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from websockets.exceptions import ConnectionClosed

from fuzz.mutation import mutate
from quice.server import Server
from quice.signal import protocol
from quice.signal.protocol import Deliver, Register
from quice.stun.attributes import Username
from quice.stun.message import Kind, Message, Method
from tests.server.peers import SESSION, raw_peer, until
from tests.server.test_stun_server import Connect, connect, request

__all__ = ["connect"]

DATAGRAMS = 20_000
FRAMES = 6
"""Of one stranger: fewer than the server queues, so that it reads the closing frame at once."""
CONNECTIONS = 200


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.INFO)
    yield
    assert [record.getMessage() for record in caplog.get_records("call")] == []


async def test_the_stun_server_answers_on_through_datagrams_of_every_kind(server: Server, connect: Connect) -> None:
    rng = random.Random(11)
    seeds = [
        request().encode(),
        Message(Method.BINDING, Kind.REQUEST, bytes(12), (Username("user"),)).encode(b"secret"),
        b"\xc0\0\0\0\1\x08" + bytes(1200),
        b"\x40" + rng.randbytes(60),
        b"\x40\0\0\x20" + rng.randbytes(32),
        b"\x16\xfe\xfd" + rng.randbytes(60),
        b"",
    ]
    noise = await connect("127.0.0.1", server.stun.port)
    client = await connect("127.0.0.1", server.stun.port)
    for number in range(DATAGRAMS):
        kind = rng.random()
        data = rng.randbytes(rng.randint(0, 100)) if kind < 0.2 else mutate(rng, seeds)
        noise.transport.sendto(data)
        if number % 200 == 0:
            # What came before is dealt with once this is answered, so that no socket buffer overflows.
            noise.transport.sendto(rng.randbytes(65_507))
            assert (await client.ask(request().encode())).kind is Kind.SUCCESS
    assert (await client.ask(request().encode())).kind is Kind.SUCCESS


@pytest.mark.parametrize("registered", [False, True], ids=["before registering", "after registering"])
async def test_the_rendezvous_serves_on_through_frames_of_every_kind(server: Server, registered: bool) -> None:
    rng = random.Random(13)
    async with raw_peer(server) as one, raw_peer(server) as other:
        await one.registered()
        await other.registered()
        seeds = [
            protocol.encode(Register(version=protocol.VERSION, peer=bytes(32), signature=bytes(64))),
            protocol.encode(Deliver(to=bytes(32), session=SESSION, body=b"body")),
            b"",
        ]
        for number in range(CONNECTIONS):
            async with raw_peer(server) as stranger:
                if registered:
                    await stranger.registered()
                with contextlib.suppress(ConnectionClosed):
                    for _ in range(FRAMES):
                        frame = mutate(rng, seeds)
                        await stranger.send(frame if rng.random() < 0.9 else frame.decode("latin-1"))
                    await stranger.socket.close()
            await one.deliver(other.peer, number.to_bytes(2, "big"))
            assert await other.body() == number.to_bytes(2, "big")
        await until(lambda: len(server.rendezvous) == 2)


async def test_the_rendezvous_serves_on_beside_who_speaks_no_websocket(server: Server) -> None:
    rng = random.Random(17)
    loop = asyncio.get_running_loop()
    port = urlsplit(server.url).port
    opening = (
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    seeds = [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\3\1\0\xa5\1\0\0\xa1" + bytes(100), b"\0" * 20_000, opening]
    async with raw_peer(server) as one:
        await one.registered()
        for number in range(CONNECTIONS):
            with socket.socket() as stranger:
                stranger.setblocking(False)
                await loop.sock_connect(stranger, ("127.0.0.1", port))
                data = mutate(rng, seeds)
                # After a handshake that was understood, frames that break RFC 6455.
                with contextlib.suppress(ConnectionError):
                    await loop.sock_sendall(stranger, data + rng.randbytes(50))
            await one.deliver(one.peer, number.to_bytes(2, "big"))
            assert await one.body() == number.to_bytes(2, "big")
        await until(lambda: len(server._connections) == 1)
