"""Strangers at the rendezvous server, and peers that are registered and mean no good: they cost little, and get nothing
that is another's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fuzz.memory import resident
from quice.identity import Identity
from quice.server import Server
from quice.server import rendezvous as rendezvous_module
from quice.server import strangers as strangers_module
from quice.server import websocket as websocket_module
from quice.server.strangers import MAX_OPENING, Strangers
from quice.signal import protocol
from quice.signal.protocol import Challenge, Deliver, Delivered, Refused, Register
from tests.server.peers import SESSION, RawPeer, no_failure_goes_unseen, raw_peer, server, until

__all__ = ["no_failure_goes_unseen", "server"]

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
# RFC 6455 §5.2: a binary message that goes on, and a continuation of it with nothing in it; masked.
BEGINS, CONTINUES = b"\x02\x80mask", b"\x00\x80mask"
CONNECTIONS = 500
KIBIBYTE = 1 << 10


class Stranger:
    """A TCP connection to the server on which anything may be sent."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ended(self) -> bytes:
        """What the server still says, once it has ended the connection."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""


@contextlib.asynccontextmanager
async def strangers(server: Server, count: int = 1) -> AsyncIterator[list[Stranger]]:
    """So many connections that are nothing yet."""
    host, port = server.url.removeprefix("ws://").split(":")
    made = [Stranger(*await asyncio.open_connection(host, int(port))) for _ in range(count)]
    await until(lambda: len(server._connections) >= count)
    try:
        yield made
    finally:
        for each in made:
            each.writer.transport.abort()


async def serves(server: Server) -> None:
    """Somebody can register and is served."""
    async with raw_peer(server) as one:
        await one.registered()
        await one.deliver(one.peer, b"still served")
        assert await one.body() == b"still served"


# Registering as somebody else.


async def begin(peer: RawPeer) -> bytes:
    """The nonce of a connection's challenge."""
    challenge = await peer.receive()
    assert isinstance(challenge, Challenge)
    return challenge.nonce


async def refused(peer: RawPeer, register: Register) -> str:
    """Why a registration is refused."""
    await peer.send(register)
    answer = await peer.receive()
    assert isinstance(answer, Refused)
    assert await peer.ended() == (protocol.REFUSED, answer.text)
    return answer.text


def registration(identity: Identity, text: bytes, **changes: Any) -> Register:
    values: dict[str, Any] = {"peer": identity.peer.key, "signature": identity.sign(text)}
    return Register(version=protocol.VERSION, **values | changes)


async def test_who_has_not_the_key_does_not_register_as_its_owner(server: Server) -> None:
    victim, thief = Identity.generate(), Identity.generate()
    async with raw_peer(server, victim) as true, raw_peer(server) as other:
        await true.registered()
        nonce = await begin(other)
        text = protocol.signed_text(nonce, victim.peer)
        assert "signature" in await refused(other, registration(thief, text, peer=victim.peer.key))
        # And has not taken the place of the owner.
        await true.deliver(victim.peer, b"mine")
        assert await true.body() == b"mine"


async def test_a_registration_that_was_overheard_is_of_no_use_on_another_connection(server: Server) -> None:
    victim = Identity.generate()
    async with raw_peer(server, victim) as true, raw_peer(server) as other:
        register = registration(victim, protocol.signed_text(await begin(true), victim.peer))
        await true.send(register)
        await true.receive()
        await begin(other)
        assert "signature" in await refused(other, register)


async def test_what_a_key_has_signed_elsewhere_does_not_register_it(server: Server) -> None:
    """Another server's challenge, the challenge alone, and what TLS 1.3 signs (RFC 8446 §4.4.3)."""
    victim = Identity.generate()
    texts = (
        lambda nonce: protocol.signed_text(bytes(32), victim.peer),
        lambda nonce: nonce,
        lambda nonce: nonce + victim.peer.key,
        lambda nonce: b" " * 64 + b"TLS 1.3, client CertificateVerify\0" + nonce,
        lambda nonce: protocol.signed_text(nonce, Identity.generate().peer),
    )
    for text in texts:
        async with raw_peer(server) as other:
            assert "signature" in await refused(other, registration(victim, text(await begin(other))))


async def test_a_key_of_small_order_for_which_anything_is_signed_does_not_register(server: Server) -> None:
    """RFC 8032 §8.3 and later: with such a key a signature of zeros holds for many messages."""
    small = (bytes((1,)) + bytes(31), bytes(32), b"\xec" + b"\xff" * 30 + b"\x7f")
    for key in small:
        for signature in (bytes(64), key + bytes(32)):
            async with raw_peer(server) as other:
                await begin(other)
                await refused(other, Register(version=protocol.VERSION, peer=key, signature=signature))


async def test_a_message_names_who_has_sent_it_whatever_it_says(server: Server) -> None:
    async with raw_peer(server) as victim, raw_peer(server) as liar, raw_peer(server) as reader:
        for each in (victim, liar, reader):
            await each.registered()
        forged = Delivered(sender=victim.peer.key, session=SESSION, body=b"as the victim")
        await liar.deliver(reader.peer, protocol.encode(forged))
        message = await reader.receive()
        assert isinstance(message, Delivered)
        assert message.sender == liar.peer.key
        # Nor does the server take what only it may say.
        await liar.send(protocol.encode(forged))
        assert (await liar.ended())[0] == protocol.REFUSED


# Oversized and deeply nested messages.


def text(value: str) -> bytes:
    """A short text in MessagePack."""
    return bytes((0xA0 + len(value),)) + value.encode()


BOMBS = {
    "an array of four thousand million": b"\x82"
    + text("type")
    + text("deliver")
    + text("to")
    + b"\xdd\xff\xff\xff\xff",
    "a map of four thousand million": b"\xdf\xff\xff\xff\xff" + text("type") + text("deliver"),
    "four gigabytes of bytes": b"\x82" + text("type") + text("deliver") + text("body") + b"\xc6\xff\xff\xff\xff",
    "an unknown field of any size": b"\x82" + text("more") + b"\xdd\xff\xff\xff\xff" + text("type") + text("deliver"),
    "arrays in arrays": b"\x82" + text("more") + b"\x91" * 16_000,
    "maps in maps": b"\x82" + text("more") + (b"\x81" + text("x")) * 5_000,
    "nothing but arrays": b"\x91" * 16_000,
    "an extension": b"\xc9\xff\xff\xff\xff\x01",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
@pytest.mark.parametrize("registered", [False, True], ids=["a stranger", "a peer"])
async def test_oversized_and_deeply_nested_messages_end_their_connection(
    server: Server, bomb: bytes, registered: bool
) -> None:
    async with raw_peer(server) as evil:
        if registered:
            await evil.registered()
        tracemalloc.start()
        try:
            await evil.send(bomb)
            assert (await evil.ended())[0] == protocol.REFUSED
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()
    await serves(server)


@pytest.mark.parametrize("length", [b"\x7e\xff\xff", b"\x7f" + b"\x7f" + b"\xff" * 7])
async def test_a_frame_that_is_too_long_is_refused_before_it_has_come(server: Server, length: bytes) -> None:
    async with strangers(server) as (stranger,):
        masked = bytes((length[0] | 0x80,)) + length[1:]
        stranger.writer.write(UPGRADE + b"\x82" + masked + b"mask" + bytes(100))
        await asyncio.wait_for(stranger.ended(), 5)
    await serves(server)


async def test_a_message_in_endless_pieces_is_not_kept(server: Server) -> None:
    """Pieces of nothing make no message too long, but each is kept until there is one."""
    before = resident()
    async with strangers(server) as (stranger,):
        stranger.writer.write(UPGRADE)
        await stranger.reader.readuntil(b"\r\n\r\n")
        stranger.writer.write(BEGINS)
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                stranger.writer.write(CONTINUES * 10_000)
                await stranger.writer.drain()
        await asyncio.wait_for(stranger.ended(), 5)
    assert resident() - before < 20 << 20
    await serves(server)


# Slow and half-open ones.


@pytest.mark.parametrize("start", [b"", b"G", UPGRADE[:-2], UPGRADE], ids=["nothing", "a letter", "no end", "no more"])
async def test_who_does_not_go_on_is_sent_away_in_time(
    server: Server, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(websocket_module, "OPEN_TIMEOUT", 0.3)
    monkeypatch.setattr(rendezvous_module, "_REGISTER_TIMEOUT", 0.3)
    monkeypatch.setattr(websocket_module, "CLOSE_TIMEOUT", 0.2)
    async with Server("127.0.0.1", 0, 0) as server, strangers(server, 20) as made:
        for each in made:
            each.writer.write(start)
        await asyncio.gather(*(asyncio.wait_for(each.ended(), 5) for each in made))
        await until(lambda: not len(server._connections))
        assert len(server._connections.strangers) == 0


async def test_who_sends_its_request_byte_by_byte_is_sent_away_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket_module, "OPEN_TIMEOUT", 0.5)
    async with Server("127.0.0.1", 0, 0) as server, strangers(server) as (slow,):
        loop = asyncio.get_running_loop()
        began = loop.time()

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                for byte in UPGRADE[:-2] + b"X-More: " + b"x" * 10_000:
                    slow.writer.write(bytes((byte,)))
                    await slow.writer.drain()
                    await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        await slow.ended()
        # Each byte begins no time anew.
        assert loop.time() - began < 3
        dripping.cancel()


async def test_who_registers_byte_by_byte_is_sent_away_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous_module, "_REGISTER_TIMEOUT", 0.5)
    monkeypatch.setattr(websocket_module, "CLOSE_TIMEOUT", 0.2)
    async with Server("127.0.0.1", 0, 0) as server, strangers(server) as (slow,):
        began = asyncio.get_running_loop().time()
        slow.writer.write(UPGRADE + b"\x82\xfe\x40\x00mask")
        ended = asyncio.create_task(slow.ended())
        while not ended.done():
            slow.writer.write(b"x")
            await asyncio.sleep(0.02)
        assert asyncio.get_running_loop().time() - began < 3


async def test_a_request_of_many_long_headers_is_not_kept(server: Server) -> None:
    async with strangers(server, 50) as made:
        before = resident()
        for each in made:
            with contextlib.suppress(ConnectionError):
                for number in range(100):
                    each.writer.write(b"%sX-%d: " % (UPGRADE[:-2] if not number else b"\r\n", number) + b"x" * 8000)
                    await each.writer.drain()
        await asyncio.gather(*(asyncio.wait_for(each.ended(), 5) for each in made))
        assert resident() - before < 50 * 2 * MAX_OPENING + (8 << 20)
    await serves(server)


async def test_half_open_connections_cost_a_fixed_amount_each(server: Server) -> None:
    # The first ones load what all of them need.
    async with strangers(server, 50):
        pass
    await until(lambda: not len(server._connections))
    before = resident()
    async with strangers(server, CONNECTIONS) as made:
        for each in made:
            each.writer.write(UPGRADE)
        await asyncio.gather(*(each.reader.readuntil(b"\r\n\r\n") for each in made))
        # With this side's own.
        assert (resident() - before) / CONNECTIONS < 64 * KIBIBYTE
        await serves(server)


async def test_of_too_many_strangers_the_oldest_gives_way_and_who_registers_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(websocket_module, "Strangers", lambda: Strangers(most=20))
    async with Server("127.0.0.1", 0, 0) as server, raw_peer(server) as old:
        await old.registered()
        async with strangers(server, 20) as first, strangers(server, 20) as second:
            await asyncio.gather(*(asyncio.wait_for(each.ended(), 5) for each in first))
            assert len(server._connections.strangers) == 20
            assert not any(each.reader.at_eof() for each in second)
            await serves(server)
            await old.deliver(old.peer, b"still here")
            assert await old.body() == b"still here"
    assert strangers_module.MOST * (MAX_OPENING + 16 * KIBIBYTE) < 300 << 20


# Peers that are registered.


async def test_a_peer_that_reads_nothing_costs_a_fixed_amount(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous_module, "_BURST", 1e9)
    channel = socket.socket()
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    channel.setblocking(False)
    host, port = server.url.removeprefix("ws://").split(":")
    await asyncio.get_running_loop().sock_connect(channel, (host, int(port)))
    async with raw_peer(server) as one, raw_peer(server, sock=channel, ping_interval=None) as deaf:
        await one.registered()
        await deaf.registered()
        deaf.socket.transport.pause_reading()
        for _ in range(200):
            await one.send(Deliver(to=deaf.peer.key, session=SESSION, body=bytes(protocol.MAX_BODY)))
            await asyncio.sleep(0)
        await one.deliver(one.peer, b"still served")
        while not isinstance(message := await one.receive(), Delivered):
            pass
        assert message.body == b"still served"
        waiting = [each.transport.get_write_buffer_size() for each in server._connections]
        assert max(waiting) <= websocket_module.MAX_BUFFER
        deaf.socket.transport.abort()


async def test_a_peer_that_floods_is_held_back_by_its_own_connection(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it sends beyond its rate waits on its side, not in the server."""
    monkeypatch.setattr(rendezvous_module, "_BURST", 10.0)
    monkeypatch.setattr(rendezvous_module, "_RATE", 10.0)
    async with raw_peer(server) as flooding:
        await flooding.registered()
        before = resident()
        message = protocol.encode(Deliver(to=flooding.peer.key, session=SESSION, body=bytes(protocol.MAX_BODY)))
        sent = 0
        with contextlib.suppress(asyncio.TimeoutError):
            while sent < 5000:
                await asyncio.wait_for(flooding.socket.send(message), 0.5)
                sent += 1
        assert sent < 5000
        assert resident() - before < 32 << 20
        await serves(server)
        flooding.socket.transport.abort()


async def test_a_peer_that_floods_another_gets_through_at_its_rate(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous_module, "_BURST", 10.0)
    monkeypatch.setattr(rendezvous_module, "_RATE", 10.0)
    async with raw_peer(server) as flooding, raw_peer(server) as flooded:
        await flooding.registered()
        await flooded.registered()
        loop = asyncio.get_running_loop()
        began, received = loop.time(), 0
        for _ in range(300):
            await flooding.deliver(flooded.peer, b"again")
        with contextlib.suppress(asyncio.TimeoutError):
            while loop.time() < began + 1:
                await asyncio.wait_for(flooded.body(), 1)
                received += 1
        assert 10 <= received <= 10 + 10 * (loop.time() - began) + 1
        flooding.socket.transport.abort()


def test_the_key_of_a_peer_is_an_ed25519_key_like_any_other() -> None:
    """So that what is said of its signatures is what is said of Ed25519's."""
    identity = Identity.generate()
    theirs = Ed25519PrivateKey.from_private_bytes(identity.secret_key).public_key().public_bytes_raw()
    assert theirs == identity.peer.key
