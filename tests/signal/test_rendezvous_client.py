"""A peer's side of the rendezvous, against a real server and against wrong ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import msgspec
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from quice.errors import InvalidPeerIdError, PeerUnreachableError, ServerUnreachableError, SignallingClosedError
from quice.identity import Identity, PeerId
from quice.server import Server
from quice.signal import protocol, registration, sealed, servers
from quice.signal.messages import VERSION, Bye, EndOfCandidates, Message, Offer, decode, encode
from quice.signal.protocol import (
    Challenge,
    Deliver,
    Delivered,
    Refused,
    Register,
    Registered,
    Relays,
    RelayServer,
    ToPeer,
    Undeliverable,
    decode_to_server,
)
from quice.signal.rendezvous import RendezvousClient
from quice.signal.seal import Seal
from quice.signal.sealed import RendezvousSignalling
from quice.signal.sequence import Envelope
from quice.wire import Address
from tests.server.peers import SESSION, interrupted_everywhere, raw_peer, until

OFFER = Offer(version=VERSION, ufrag="abcd", pwd="0123456789abcdef012345", alpn="test/1")
CHALLENGE = Challenge(version=protocol.VERSION, nonce=bytes(32))
Behaviour = Callable[[ServerConnection], Awaitable[None]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No long waits between two tries to reach the server again."""
    monkeypatch.setattr(registration, "_BACKOFF", (0.01, 0.05))
    monkeypatch.setattr(registration, "_PATIENCE", 0.2)


def envelope(message: Message, number: int = 1) -> bytes:
    """A message as it goes from peer to peer, before it is sealed."""
    return msgspec.msgpack.encode(Envelope(number, 0, encode(message)))


class Sessions(asyncio.Queue[RendezvousSignalling]):
    """The sessions that others begin with a client."""


@contextlib.asynccontextmanager
async def client(url: str, identity: Identity | None = None) -> AsyncIterator[tuple[RendezvousClient, Sessions]]:
    sessions = Sessions()
    client = RendezvousClient(url, identity or Identity.generate(), sessions.put_nowait)
    await client.start()
    try:
        yield client, sessions
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def behaving(behave: Behaviour) -> AsyncIterator[str]:
    """A WebSocket server that does what the test wants; its URL."""

    async def handler(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            await behave(connection)

    async with serve(handler, "127.0.0.1", 0, ping_interval=None, close_timeout=0.2) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


async def welcome(connection: ServerConnection, relays: tuple[RelayServer, ...] = ()) -> Register:
    """Register whoever comes."""
    await connection.send(protocol.encode(CHALLENGE))
    register = decode_to_server(await connection.recv())
    assert isinstance(register, Register)
    await connection.send(protocol.encode(Registered(stun_port=0, relays=relays)))
    return register


async def test_two_peers_exchange_messages_in_order(server: Server) -> None:
    async with client(server.url) as (one, _), client(server.url) as (other, sessions):
        near = one.open(other.identity.peer)
        await near.send(OFFER)
        far = await sessions.get()
        assert far.peer == one.identity.peer
        for _ in range(20):
            await near.send(EndOfCandidates())
        await near.send(Bye())
        assert [await far.receive() for _ in range(22)] == [OFFER, *[EndOfCandidates()] * 20, Bye()]
        await far.send(EndOfCandidates())
        assert await near.receive() == EndOfCandidates()
        assert sessions.empty()


async def test_two_sessions_of_the_same_peers_do_not_mix(server: Server) -> None:
    async with client(server.url) as (one, _), client(server.url) as (other, sessions):
        near = [one.open(other.identity.peer) for _ in range(2)]
        await near[0].send(OFFER)
        await near[1].send(OFFER)
        far = [await sessions.get() for _ in range(2)]
        await far[1].send(Bye())
        await far[0].send(EndOfCandidates())
        assert await near[0].receive() == EndOfCandidates()
        assert await near[1].receive() == Bye()


async def test_a_peer_that_is_not_there_is_named(server: Server) -> None:
    nobody = Identity.generate().peer
    async with client(server.url) as (one, _):
        session = one.open(nobody)
        await session.send(OFFER)
        with pytest.raises(PeerUnreachableError, match=str(nobody)):
            await session.receive()
        with pytest.raises(PeerUnreachableError):
            await session.send(Bye())


async def test_the_stun_server_is_at_the_host_of_the_url(server: Server) -> None:
    port = urlsplit(server.url).port
    async with client(f"ws://localhost:{port}") as (one, _):
        assert Address("127.0.0.1", server.stun.port) in one.stun_servers
        assert {address.port for address in one.stun_servers} == {server.stun.port}
        assert len(set(one.stun_servers)) == len(one.stun_servers)


async def test_a_server_without_stun_names_none() -> None:
    async def behave(connection: ServerConnection) -> None:
        await welcome(connection)
        await connection.wait_closed()

    async with behaving(behave) as url, client(url) as (one, _):
        assert one.stun_servers == ()


async def test_the_relays_are_where_the_server_was_reached_and_their_credentials_are_the_peers_own(
    server: Server,
) -> None:
    port = urlsplit(server.url).port
    async with client(f"ws://localhost:{port}") as (one, _):
        (relay,) = one.relays
        at = f"turn:127.0.0.1:{server.stun.port}"
        assert relay.urls == (f"{at}?transport=udp", f"{at}?transport=tcp")
        assert relay.username.partition(":")[2] == str(one.identity.peer)
        assert relay.lifetime > 0


async def test_a_host_that_a_relay_names_itself_is_left_alone() -> None:
    urls = ("turn:relay.example.org", "turns:[2001:db8::1]:443?transport=tcp", "turn::3478", "turn:?transport=udp")
    here = ("turn:relay.example.org", "turns:[2001:db8::1]:443?transport=tcp", "turn:127.0.0.1:3478")

    async def behave(connection: ServerConnection) -> None:
        relay = RelayServer(urls=urls, username="me", password="secret", lifetime=60.0)
        await welcome(connection, relays=(relay,))
        await connection.wait_closed()

    async with behaving(behave) as url, client(url) as (one, _):
        assert one.relays[0].urls == (*here, "turn:127.0.0.1?transport=udp")


async def test_relays_that_change_are_told_and_replace_the_others() -> None:
    def relay(name: str) -> RelayServer:
        return RelayServer(urls=(f"turn:{name}",), username="me", password="secret", lifetime=60.0)

    async def behave(connection: ServerConnection) -> None:
        await welcome(connection, relays=(relay("one"),))
        await connection.send(protocol.encode(Relays(relays=(relay("two"),))))
        await connection.send(protocol.encode(Relays(relays=())))
        await connection.wait_closed()

    told: list[list[str]] = []
    async with behaving(behave) as url:
        one = RendezvousClient(
            url,
            Identity.generate(),
            Sessions().put_nowait,
            lambda relays: told.append([relay.urls[0] for relay in relays]),
        )
        await one.start()
        await until(lambda: len(told) == 3)
        assert told == [["turn:one"], ["turn:two"], []]
        assert one.relays == ()
        await one.close()


async def test_after_a_restart_of_the_server_a_peer_can_be_reached_again() -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with Server("127.0.0.1", 0, 0) as first:
            one, _ = await stack.enter_async_context(client(first.url))
            other, sessions = await stack.enter_async_context(client(first.url))
        with pytest.raises(ServerUnreachableError, match=first.url):
            await one.open(other.identity.peer).send(OFFER)
        port = urlsplit(first.url).port
        assert port is not None
        async with Server("127.0.0.1", port, 0) as again:
            await until(lambda: len(again.rendezvous) == 2)
            await until(lambda: again.stun in one.stun_servers)
            near = one.open(other.identity.peer)
            await near.send(OFFER)
            assert await (await sessions.get()).receive() == OFFER


async def test_a_session_outlives_a_restart_of_the_server() -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with Server("127.0.0.1", 0, 0) as first:
            one, _ = await stack.enter_async_context(client(first.url))
            other, sessions = await stack.enter_async_context(client(first.url))
            near = one.open(other.identity.peer)
            await near.send(OFFER)
            far = await sessions.get()
            assert await far.receive() == OFFER
            waiting = asyncio.create_task(far.receive())
        port = urlsplit(first.url).port
        assert port is not None
        async with Server("127.0.0.1", port, 0) as again:
            await until(lambda: len(again.rendezvous) == 2 and one.is_registered)
            await near.send(Bye())
            assert await waiting == Bye()


async def test_a_session_outlives_a_server_that_is_killed_between_offer_and_answer() -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with Server("127.0.0.1", 0, 0) as first:
            one, _ = await stack.enter_async_context(client(first.url))
            other, sessions = await stack.enter_async_context(client(first.url))
            near = one.open(other.identity.peer)
            await near.send(OFFER)
            far = await sessions.get()
            assert await far.receive() == OFFER
            first._connections.cut_off()
        await until(lambda: not one.is_registered and not other.is_registered)
        answering = asyncio.create_task(far.send(EndOfCandidates()))
        port = urlsplit(first.url).port
        assert port is not None
        async with Server("127.0.0.1", port, 0):
            await answering
            assert await near.receive() == EndOfCandidates()


@pytest.mark.parametrize("who", ["offering", "answering", "both"])
async def test_a_session_outlives_that_connections_break_between_offer_and_answer(server: Server, who: str) -> None:
    async with client(server.url) as (one, _), client(server.url) as (other, sessions):
        near = one.open(other.identity.peer)
        await near.send(OFFER)
        far = await sessions.get()
        for broken, name in ((one, "offering"), (other, "answering")):
            if who in (name, "both"):
                assert broken.registrar.registration is not None
                broken.registrar.registration.websocket.transport.abort()
        await far.send(EndOfCandidates())
        assert await near.receive() == EndOfCandidates()
        await near.send(Bye())
        assert [await far.receive() for _ in range(2)] == [OFFER, Bye()]


async def test_a_server_that_does_not_answer_a_check_is_left_for_a_new_connection() -> None:
    registrations: asyncio.Queue[ServerConnection] = asyncio.Queue()

    async def behave(connection: ServerConnection) -> None:
        await welcome(connection)
        registrations.put_nowait(connection)
        await connection.wait_closed()

    async with behaving(behave) as url, client(url) as (one, _):
        first = await registrations.get()
        await one.check()
        assert registrations.empty()
        first.transport.pause_reading()
        await one.check(within=0.05)
        await registrations.get()
        assert one.is_registered
        first.transport.abort()


async def test_a_server_that_is_gone_without_a_word_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_KEEPALIVE", 0.1)
    monkeypatch.setattr(servers, "CLOSE_TIMEOUT", 0.1)
    registrations: asyncio.Queue[Register] = asyncio.Queue()

    async def behave(connection: ServerConnection) -> None:
        registrations.put_nowait(await welcome(connection))
        connection.transport.pause_reading()
        await connection.wait_closed()

    async with behaving(behave) as url, client(url):
        first = await registrations.get()
        assert (await registrations.get()).peer == first.peer


async def test_a_peer_that_was_replaced_waits_until_the_other_is_gone(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    identity, third = Identity.generate(), Identity.generate().peer
    async with client(server.url, identity) as (old, sessions):
        async with client(server.url, identity) as (new, _):
            await until(lambda: not old.is_registered)
            with pytest.raises(ServerUnreachableError, match="another program has registered with this identity"):
                await old.open(third).send(OFFER)
            # Time for a few tries.
            await asyncio.sleep(0.3)
            assert new.is_registered
            assert not old.is_registered
        await until(lambda: old.is_registered)
        async with client(server.url) as (one, _):
            await one.open(identity.peer).send(OFFER)
            assert await (await sessions.get()).receive() == OFFER
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        "another program has registered with this identity, which takes one at a time; this one waits until it is gone"
    ]


async def says_nothing(connection: ServerConnection) -> None:
    await connection.wait_closed()


async def says_text(connection: ServerConnection) -> None:
    await connection.send("welcome")
    await connection.wait_closed()


async def says_noise(connection: ServerConnection) -> None:
    await connection.send(b"\xc1\x00")
    await connection.wait_closed()


async def says_too_much(connection: ServerConnection) -> None:
    await connection.send(bytes(protocol.MAX_FRAME + 1))
    await connection.wait_closed()


async def leaves(connection: ServerConnection) -> None:
    await connection.close()


async def is_of_another_version(connection: ServerConnection) -> None:
    await connection.send(protocol.encode(Challenge(version=2, nonce=b"")))
    await connection.wait_closed()


async def refuses(connection: ServerConnection) -> None:
    await connection.send(protocol.encode(CHALLENGE))
    await connection.recv()
    await connection.send(protocol.encode(Refused(text="no more room")))
    await connection.wait_closed()


async def leaves_late(connection: ServerConnection) -> None:
    await connection.send(protocol.encode(CHALLENGE))
    await connection.recv()
    connection.transport.abort()


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        (says_nothing, "no answer in time"),
        (says_text, "it is no rendezvous server"),
        (says_noise, "it is no rendezvous server"),
        (says_too_much, "it is no rendezvous server"),
        (leaves, "it is no rendezvous server"),
        (leaves_late, "it is no rendezvous server"),
        (is_of_another_version, "another version of the protocol"),
        (refuses, "it refused the registration: no more room"),
    ],
)
async def test_a_server_that_does_not_do_its_work_is_named_with_the_reason(
    behave: Behaviour, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers, "ANSWER_TIMEOUT", 0.3)
    async with behaving(behave) as url:
        with pytest.raises(ServerUnreachableError, match=why) as failure:
            await RendezvousClient(url, Identity.generate(), print).start()
        assert url in str(failure.value)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "http://127.0.0.1:1", "ws://", "ws://127.0.0.1:1", "ws://[::1", "ws://a:b"]
)
async def test_a_url_that_leads_nowhere_is_named(url: str) -> None:
    with pytest.raises(ServerUnreachableError, match="Check the URL"):
        await RendezvousClient(url, Identity.generate(), print).start()


@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 404 Not Found\r\n\r\n", b"\0" * 5000])
async def test_a_server_that_is_no_websocket_server_is_named(answer: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    async with await asyncio.start_server(handler, "127.0.0.1", 0) as listener:
        url = f"ws://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        with pytest.raises(ServerUnreachableError, match=url):
            await RendezvousClient(url, Identity.generate(), print).start()


async def test_what_a_server_says_wrongly_is_ignored() -> None:
    identity = Identity.generate()
    peer = identity.peer

    def delivered(envelope: bytes, receiver: bytes, session: bytes = SESSION) -> Delivered:
        sealed = Seal(identity, PeerId(receiver), session, random.SystemRandom()).seal(envelope)
        return Delivered(sender=peer.key, session=session, body=sealed)

    def wrong(us: bytes) -> list[bytes | str | ToPeer]:
        right = delivered(envelope(OFFER), us)
        return [
            b"",
            b"\xc1",
            "text",
            CHALLENGE,
            Registered(stun_port=1),
            Refused(text="why not"),
            Undeliverable(to=b"short", session=SESSION),
            Undeliverable(to=peer.key, session=SESSION),
            msgspec.structs.replace(right, sender=b"short"),
            msgspec.structs.replace(right, session=b"short"),
            # No key, so that nothing can be sealed to this peer.
            msgspec.structs.replace(right, sender=bytes(32)),
            delivered(b"\xc1", us),
            delivered(msgspec.msgpack.encode(Envelope(1, 0, encode(OFFER)[:-1])), us),
            # A session begins with an offer: this is late for one that is over.
            delivered(envelope(Bye()), us),
            delivered(envelope(OFFER, number=2), us),
            # Not sealed, sealed to somebody else, and by somebody else.
            msgspec.structs.replace(right, body=envelope(OFFER)),
            delivered(envelope(OFFER), Identity.generate().peer.key),
            msgspec.structs.replace(right, sender=Identity.generate().peer.key),
        ]

    async def behave(connection: ServerConnection) -> None:
        us = (await welcome(connection)).peer
        for message in wrong(us):
            await connection.send(message if isinstance(message, (bytes, str)) else protocol.encode(message))
        await connection.send(protocol.encode(delivered(envelope(OFFER), us, b"r" * 16)))
        await connection.wait_closed()

    async with behaving(behave) as url, client(url) as (one, sessions):
        session = await sessions.get()
        assert session._session == b"r" * 16
        assert await session.receive() == OFFER
        assert sessions.empty()
        assert one.sessions.unopened == 3


async def test_no_session_begins_with_a_peer_that_nothing_can_be_sealed_to(server: Server) -> None:
    async with client(server.url) as (one, _):
        with pytest.raises(InvalidPeerIdError):
            one.open(PeerId(bytes(32)))
        assert not one.sessions.active


async def test_a_session_that_is_not_read_ends_after_a_fixed_number_of_messages(server: Server) -> None:
    async with client(server.url) as (one, _), client(server.url) as (other, sessions):
        near = one.open(other.identity.peer)
        await near.send(OFFER)
        for _ in range(sealed._MAX_WAITING):
            await near.send(EndOfCandidates())
        second = one.open(other.identity.peer)
        await second.send(OFFER)
        far = await sessions.get()
        assert await (await sessions.get()).receive() == OFFER
        taken = [await far.receive() for _ in range(sealed._MAX_WAITING)]
        assert taken == [OFFER, *[EndOfCandidates()] * (sealed._MAX_WAITING - 1)]
        with pytest.raises(SignallingClosedError):
            await far.receive()


async def test_a_peer_can_begin_a_limited_number_of_sessions(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "_MAX_SESSIONS", 5)
    async with client(server.url) as (one, _), client(server.url) as (other, sessions):
        for _ in range(8):
            await one.open(other.identity.peer).send(OFFER)
        open_now = [await sessions.get() for _ in range(5)]
        await open_now[0].close()
        near = one.open(other.identity.peer)
        await near.send(OFFER)
        last = await sessions.get()
        assert last._session == near._session
        assert sessions.empty()


async def test_a_message_for_a_session_that_is_over_begins_no_new_one(server: Server) -> None:
    async with client(server.url) as (one, _), client(server.url) as (other, sessions):
        near = one.open(other.identity.peer)
        await near.send(OFFER)
        await (await sessions.get()).close()
        await near.send(EndOfCandidates())
        second = one.open(other.identity.peer)
        await second.send(OFFER)
        assert (await sessions.get())._session == second._session
        assert len(other.sessions.active) == 1


async def test_the_offer_of_a_session_that_is_over_begins_it_no_more(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed, "_LINGER", 0.01)
    async with client(server.url) as (other, sessions), raw_peer(server) as peer:
        await peer.registered()
        us = other.identity.peer
        offer = Seal(peer.identity, us, SESSION, random.SystemRandom()).seal(envelope(OFFER))
        await peer.deliver(us, offer)
        await (await sessions.get()).close()
        await until(lambda: not other.sessions.lingering)
        await peer.deliver(us, offer)
        later = b"t" * 16
        offer = Seal(peer.identity, us, later, random.SystemRandom()).seal(envelope(OFFER))
        await peer.send(Deliver(to=us.key, session=later, body=offer))
        assert (await sessions.get())._session == later
        assert sessions.empty()


async def test_only_so_many_sessions_that_are_over_are_remembered(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed, "_REMEMBERED", 3)
    async with client(server.url) as (one, _), client(server.url) as (other, sessions):
        begun = []
        for _ in range(5):
            await one.open(other.identity.peer).send(OFFER)
            begun.append((await sessions.get()).key)
        assert list(other.sessions.begun) == begun[-3:]


async def test_closing_a_session_ends_its_receive_and_send_alone(server: Server) -> None:
    async with client(server.url) as (one, _), client(server.url) as (other, sessions):
        near, second = one.open(other.identity.peer), one.open(other.identity.peer)
        waiting = asyncio.create_task(near.receive())
        await asyncio.sleep(0)
        await near.close()
        await near.close()
        with pytest.raises(SignallingClosedError):
            await waiting
        with pytest.raises(SignallingClosedError):
            await near.send(OFFER)
        await second.send(OFFER)
        assert await (await sessions.get()).receive() == OFFER


async def test_closing_a_client_ends_every_session_and_leaves_the_server(server: Server) -> None:
    async with client(server.url) as (one, _):
        session = one.open(Identity.generate().peer)
        waiting = asyncio.create_task(session.receive())
        await asyncio.sleep(0)
        await one.close()
        await one.close()
        with pytest.raises(SignallingClosedError):
            await waiting
        with pytest.raises(ServerUnreachableError, match="closed"):
            await one.open(Identity.generate().peer).send(OFFER)
    await until(lambda: len(server.rendezvous) == 0)


async def test_a_client_closes_in_time_beside_a_server_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "CLOSE_TIMEOUT", 0.1)
    loop = asyncio.get_running_loop()

    async def behave(connection: ServerConnection) -> None:
        await welcome(connection)
        connection.transport.pause_reading()
        await connection.wait_closed()

    async with behaving(behave) as url, client(url) as (one, _):
        # More than the sockets hold, so that the closing handshake has to wait behind it.
        large = Offer(version=VERSION, ufrag="abcd", pwd="a" * 256, alpn="a" * 255)
        session = one.open(Identity.generate().peer)
        for _ in range(400):
            await session.send(large)
        started = loop.time()
        await one.close()
        assert loop.time() - started < 1


async def test_a_client_can_be_closed_while_the_server_is_away() -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with Server("127.0.0.1", 0, 0) as server:
            one, _ = await stack.enter_async_context(client(server.url))
        await until(lambda: not one.is_registered)
        await one.close()


async def test_starting_can_be_cancelled_at_every_turn(server: Server) -> None:
    async def attempt() -> None:
        async with client(server.url):
            pass

    assert await interrupted_everywhere(attempt) > 5
    await until(lambda: len(server.rendezvous) == 0)
    await until(lambda: len(server._connections) == 0)


async def test_a_cancelled_receive_takes_no_message_with_it(server: Server) -> None:
    async with client(server.url) as (one, _), client(server.url) as (other, sessions):
        near = one.open(other.identity.peer)
        await near.send(OFFER)
        far = await sessions.get()
        for turns in range(40):
            waiting = asyncio.create_task(near.receive())
            await far.send(EndOfCandidates())
            for _ in range(turns):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            if waiting.cancelled():
                assert await near.receive() == EndOfCandidates()
            else:
                assert waiting.result() == EndOfCandidates()


async def test_a_cancelled_send_leaves_the_connection_whole(server: Server) -> None:
    async with client(server.url) as (one, _), raw_peer(server) as peer:
        await peer.registered()
        session = one.open(peer.peer)
        for turns in range(10):
            sending = asyncio.create_task(session.send(OFFER))
            for _ in range(turns):
                await asyncio.sleep(0)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        await session.send(Bye())
        seal = Seal(peer.identity, one.identity.peer, session._session, random.SystemRandom())
        received = []
        while Bye() not in received:
            opened = seal.open(await peer.body())
            assert opened is not None
            received.append(decode(msgspec.msgpack.decode(opened, type=Envelope).message))
        assert received == [*[OFFER] * (len(received) - 1), Bye()]


async def test_the_log_names_no_address_and_no_peer_at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with contextlib.AsyncExitStack() as stack:
        async with Server("127.0.0.1", 0, 0) as server:
            one, _ = await stack.enter_async_context(client(server.url))
            await one.open(Identity.generate().peer).send(OFFER)
        await until(lambda: not one.is_registered)
    assert [record.message for record in caplog.records] == ["the rendezvous server is gone; trying to reach it again"]
