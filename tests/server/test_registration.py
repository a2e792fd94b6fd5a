"""Who the rendezvous server takes for whom."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest
from websockets.exceptions import ConnectionClosedError

from quice.identity import Identity
from quice.server import Server
from quice.server import rendezvous as rendezvous_module
from quice.signal import protocol
from quice.signal.protocol import Challenge, Deliver, Delivered, Refused, Register, Registered, Undeliverable
from tests.server.peers import SESSION, RawPeer, raw_peer, until


async def test_a_peer_that_proves_its_key_is_registered_and_told_the_stun_port(server: Server) -> None:
    async with raw_peer(server) as peer:
        await peer.register()
        answer = await peer.receive()
        assert isinstance(answer, Registered)
        assert answer.stun_port == server.stun.port
        assert len(server.rendezvous) == 1
    await until(lambda: len(server.rendezvous) == 0)


async def test_each_connection_gets_a_challenge_of_its_own(server: Server) -> None:
    async with raw_peer(server) as one, raw_peer(server) as other:
        assert await one.receive() != await other.receive()


async def with_another_key(peer: RawPeer) -> None:
    await peer.register(peer=Identity.generate().peer.key)


async def with_a_wrong_signature(peer: RawPeer) -> None:
    await peer.register(signature=bytes(64))


async def with_a_signature_over_another_challenge(peer: RawPeer) -> None:
    await peer.register(signature=peer.identity.sign(protocol.signed_text(bytes(32), peer.peer)))


async def with_a_key_that_is_no_point(peer: RawPeer) -> None:
    await peer.register(peer=b"\xff" * 32)


async def with_another_version(peer: RawPeer) -> None:
    await peer.register(version=protocol.VERSION + 1)


async def with_a_short_key(peer: RawPeer) -> None:
    await peer.register(peer=bytes(31))


async def with_a_delivery(peer: RawPeer) -> None:
    await peer.deliver(Identity.generate().peer, b"")


async def with_text(peer: RawPeer) -> None:
    await peer.send("register me")


async def with_noise(peer: RawPeer) -> None:
    await peer.send(b"\xc1\xff\x00")


async def with_words_too_long_for_a_close_frame(peer: RawPeer) -> None:
    await peer.send(b"\x81\xa4type\xda\x02\x58" + "€".encode() * 200)


WRONG: list[Callable[[RawPeer], Awaitable[None]]] = [
    with_another_key,
    with_a_wrong_signature,
    with_a_signature_over_another_challenge,
    with_a_key_that_is_no_point,
    with_another_version,
    with_a_short_key,
    with_a_delivery,
    with_text,
    with_noise,
    with_words_too_long_for_a_close_frame,
]


@pytest.mark.parametrize("begin", WRONG, ids=lambda begin: begin.__name__)
async def test_who_begins_wrongly_is_told_why_and_sent_away(
    server: Server, begin: Callable[[RawPeer], Awaitable[None]]
) -> None:
    async with raw_peer(server) as peer:
        await begin(peer)
        while isinstance(refused := await peer.receive(), Challenge):
            pass
        assert isinstance(refused, Refused)
        assert await peer.ended() == (protocol.REFUSED, refused.text)
    assert len(server.rendezvous) == 0


async def test_who_does_not_register_in_time_is_sent_away(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous_module, "_REGISTER_TIMEOUT", 0.05)
    async with raw_peer(server) as peer:
        await peer.receive()
        assert await peer.receive() == Refused(text="no registration came in time")
        assert (await peer.ended())[0] == protocol.REFUSED


async def test_who_leaves_instead_of_registering_is_forgotten(server: Server) -> None:
    async with raw_peer(server) as peer:
        await peer.receive()
        peer.socket.transport.abort()
    async with raw_peer(server) as other:
        await other.registered()


async def test_a_second_registration_on_one_connection_is_refused(server: Server) -> None:
    async with raw_peer(server) as peer:
        await peer.registered()
        await peer.send(Register(version=protocol.VERSION, peer=peer.peer.key, signature=bytes(64)))
        assert await peer.receive() == Refused(text="registered already")
        assert (await peer.ended())[0] == protocol.REFUSED
    await until(lambda: len(server.rendezvous) == 0)


async def test_a_new_registration_replaces_the_old_one(server: Server) -> None:
    identity = Identity.generate()
    async with raw_peer(server) as other, raw_peer(server, identity) as old, raw_peer(server, identity) as new:
        await other.registered()
        await old.registered()
        await new.registered()
        assert await old.ended() == (protocol.REPLACED, "registered again")
        await old.socket.wait_closed()
        # What is left of the old connection neither ends the new registration nor gets its messages.
        assert len(server.rendezvous) == 2
        await other.deliver(identity.peer, b"to the new one")
        assert await new.body() == b"to the new one"


async def test_a_peer_that_does_not_want_to_replace_waits_until_the_other_is_gone(server: Server) -> None:
    identity = Identity.generate()
    async with raw_peer(server, identity) as first:
        await first.registered()
        async with raw_peer(server, identity) as second:
            await second.register(replace=False)
            assert await second.receive() == Refused(text="this peer is registered on another connection")
        await first.deliver(identity.peer, b"still here")
        assert await first.body() == b"still here"
    await until(lambda: len(server.rendezvous) == 0)
    async with raw_peer(server, identity) as third:
        await third.register(replace=False)
        assert isinstance(await third.receive(), Registered)


async def test_deliveries_may_follow_right_behind_the_registration(server: Server) -> None:
    async with raw_peer(server) as one, raw_peer(server) as other:
        await other.registered()
        await one.register()
        for number in range(3):
            await one.deliver(other.peer, bytes([number]))
        assert [await other.body() for _ in range(3)] == [b"\0", b"\1", b"\2"]


async def test_a_message_carries_its_session_and_a_sender_who_has_proven_its_key(server: Server) -> None:
    async with raw_peer(server) as one, raw_peer(server) as other:
        await one.registered()
        await other.registered()
        body = bytes(range(256)) * (protocol.MAX_BODY // 256)
        await one.send(Deliver(to=other.peer.key, session=SESSION, body=body))
        assert await other.receive() == Delivered(sender=one.peer.key, session=SESSION, body=body)


async def test_a_message_to_nobody_comes_back_as_undeliverable(server: Server) -> None:
    nobody = Identity.generate().peer
    async with raw_peer(server) as peer:
        await peer.registered()
        await peer.deliver(nobody, b"hello?")
        assert await peer.receive() == Undeliverable(to=nobody.key, session=SESSION)


async def test_a_frame_that_is_too_large_ends_its_connection_alone(server: Server) -> None:
    async with raw_peer(server) as one, raw_peer(server) as other:
        await one.registered()
        await other.registered()
        with contextlib.suppress(ConnectionClosedError):
            await one.send(bytes(protocol.MAX_FRAME + 1))
        # RFC 6455 §7.4.1: 1009 is a message too big to process.
        assert (await one.ended())[0] == 1009
        await other.deliver(other.peer, b"still served")
        assert await other.body() == b"still served"


async def test_a_body_that_is_too_large_ends_its_connection(server: Server) -> None:
    async with raw_peer(server) as peer:
        await peer.registered()
        await peer.deliver(peer.peer, bytes(protocol.MAX_BODY + 1))
        assert isinstance(await peer.receive(), Refused)
        assert (await peer.ended())[0] == protocol.REFUSED


async def test_many_peers_register_at_once(server: Server) -> None:
    async with contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(raw_peer(server)) for _ in range(50)]
        await asyncio.gather(*(peer.registered() for peer in peers))
        for peer, following in zip(peers, peers[1:] + peers[:1], strict=True):
            await peer.deliver(following.peer, peer.peer.key)
        for peer, following in zip(peers, peers[1:] + peers[:1], strict=True):
            assert await following.body() == peer.peer.key
