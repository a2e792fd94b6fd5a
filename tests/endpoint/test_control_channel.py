"""Signalling inside a connection: two quice endpoints have it, a plain peer does not, and no application sees it."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import AsyncIterator, Callable

import pytest

from quice import Address, Connection, Endpoint, Identity, Stream, TransportConfig, _native
from quice.alpn import agreed, offered
from quice.control import ControlChannel, InbandSignalling
from quice.errors import HandshakeError, SignallingClosedError
from quice.ice.generation import MAX_REMOTE_CANDIDATES
from quice.introductions import Introductions
from quice.pump import SocketPump
from quice.signal.inband import MAX_SESSIONS, Hello, Say, encode
from quice.signal.messages import Answer, Bye, CandidateFound, Offer
from quice.signal.messages import encode as body
from tests.endpoint.conftest import ALPN, Pair
from tests.signal.test_messages import HOST, OFFER, PWD, UFRAG

ANSWER = Answer(ufrag=UFRAG, pwd=PWD)
MARKED, PLAIN = offered(ALPN)
SEED = bytes(range(32))
FOREIGN = Identity(SEED).peer


class Foreign:
    """A peer that is no endpoint of ours: the bare engine, with what has happened to its one connection."""

    def __init__(self, alpns: list[bytes], config: TransportConfig) -> None:
        credentials = _native.Credentials.raw_key(SEED)
        self.events: list[_native.Event] = []
        self._changed = asyncio.Event()
        self.pump = SocketPump(_native.Engine(credentials, alpns, config, sockets=True), self._on_event)
        self.address = self.pump.bind("127.0.0.1", 0)
        self.connection: _native.Connection

    def connect(self, endpoint: Endpoint, alpns: list[bytes]) -> None:
        address = Address("127.0.0.1", endpoint.port)
        self.connection = self.pump.engine.connect(address, alpns, peer=endpoint.peer.key)
        self.pump.wake()

    def write(self, stream: int, data: bytes) -> None:
        assert self.connection.write(stream, data, 0) == len(data)
        self.pump.wake()

    async def seen(self, *kinds: type[_native.Event]) -> _native.Event:
        """The first event of these kinds."""
        while True:
            for event in self.events:
                if isinstance(event, kinds):
                    return event
            self._changed.clear()
            await asyncio.wait_for(self._changed.wait(), 10)

    def _on_event(self, event: _native.Event) -> None:
        if isinstance(event, _native.Event.Connected):
            self.connection = self.pump.engine.connection(event.connection)
        self.events.append(event)
        self._changed.set()


@pytest.fixture(autouse=True)
def _nobody_negotiates(monkeypatch: pytest.MonkeyPatch) -> None:
    """The channel by itself: its sessions are these tests'."""
    monkeypatch.setattr(Introductions, "accompany", lambda *_, **__: None)


@pytest.fixture
async def foreign() -> AsyncIterator[Callable[..., Foreign]]:
    made: list[Foreign] = []

    def make(*alpns: bytes, config: TransportConfig | None = None) -> Foreign:
        made.append(Foreign(list(alpns), config or TransportConfig()))
        return made[-1]

    yield make
    for each in made:
        each.pump.close()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with Endpoint.bind(alpns=[ALPN], host="127.0.0.1") as endpoint:
        yield endpoint


def control(connection: Connection) -> ControlChannel:
    assert connection._control is not None
    return connection._control


def sessions_of(connection: Connection) -> asyncio.Queue[InbandSignalling]:
    """The sessions that the peer begins."""
    begun: asyncio.Queue[InbandSignalling] = asyncio.Queue()
    control(connection).on_session(begun.put_nowait)
    return begun


async def works(near: Connection, far: Connection) -> None:
    """The application's own streams are as ever."""
    stream = await near.open_stream()
    await stream.write(b"question")
    there = await far.accept_stream()
    assert await there.read() == b"question"
    await there.write(b"answer")
    assert await stream.read() == b"answer"


@pytest.mark.parametrize("side", ["client", "server"])
async def test_either_side_begins_a_session_and_both_talk(pair: Pair, side: str) -> None:
    near, far = (pair.near, pair.far) if side == "client" else (pair.far, pair.near)
    begun = sessions_of(far)
    ours = control(near).open()
    await ours.send(OFFER)
    theirs = await begun.get()
    assert await theirs.receive() == OFFER
    await theirs.send(ANSWER)
    await ours.send(CandidateFound(candidate=HOST))
    assert await ours.receive() == ANSWER
    assert await theirs.receive() == CandidateFound(candidate=HOST)


async def test_sessions_of_both_sides_cross_and_each_gets_its_own_messages(pair: Pair) -> None:
    begun = sessions_of(pair.near), sessions_of(pair.far)
    opened = [control(side).open() for side in (pair.near, pair.far) for _ in range(3)]
    for number, each in enumerate(opened):
        await each.send(Offer(version=1, ufrag=f"ufrag{number}", pwd=PWD, alpn=ALPN))
    for queue, numbers in zip(begun, ((3, 4, 5), (0, 1, 2)), strict=True):
        for number in numbers:
            session = await queue.get()
            offer = await session.receive()
            assert isinstance(offer, Offer)
            assert offer.ufrag == f"ufrag{number}"
            await session.send(Answer(ufrag=offer.ufrag, pwd=PWD))
    for number, each in enumerate(opened):
        assert await each.receive() == Answer(ufrag=f"ufrag{number}", pwd=PWD)


async def test_what_was_said_before_the_end_still_comes_and_then_the_end(pair: Pair) -> None:
    begun = sessions_of(pair.far)
    ours = control(pair.near).open()
    await ours.send(OFFER)
    await ours.send(Bye())
    await ours.close()
    theirs = await begun.get()
    assert [await theirs.receive(), await theirs.receive()] == [OFFER, Bye()]
    for act in (theirs.receive, theirs.receive, ours.receive):
        with pytest.raises(SignallingClosedError):
            await act()
    for side in (ours, theirs):
        with pytest.raises(SignallingClosedError):
            await side.send(Bye())


async def test_a_session_that_was_begun_before_anybody_listened_is_told_of_later(pair: Pair) -> None:
    await control(pair.near).open().send(OFFER)
    await works(pair.near, pair.far)
    assert await (await sessions_of(pair.far).get()).receive() == OFFER


async def test_who_waits_in_receive_hears_of_the_connections_end(pair: Pair) -> None:
    session = control(pair.near).open()
    await session.send(OFFER)
    receiving = asyncio.create_task(session.receive())
    await asyncio.sleep(0)
    pair.far.close()
    with pytest.raises(SignallingClosedError):
        await receiving
    with pytest.raises(SignallingClosedError):
        await control(pair.near).open().send(OFFER)


async def test_no_more_sessions_are_begun_than_the_peer_takes_and_an_ended_one_makes_room(pair: Pair) -> None:
    sessions_of(pair.far)
    opened = [control(pair.near).open() for _ in range(MAX_SESSIONS)]
    for session in opened:
        await session.send(OFFER)
    with pytest.raises(SignallingClosedError):
        await control(pair.near).open().send(OFFER)
    await opened[0].close()
    await control(pair.near).open().send(OFFER)
    await works(pair.near, pair.far)
    assert len(control(pair.far)._open) == MAX_SESSIONS


async def test_a_session_that_nobody_reads_ends_and_keeps_little(pair: Pair) -> None:
    begun = sessions_of(pair.far)
    session = control(pair.near).open()
    large = Offer(version=1, ufrag=UFRAG, pwd=PWD, alpn=ALPN, candidates=(HOST,) * MAX_REMOTE_CANDIDATES)
    await session.send(large)
    unread = await begun.get()
    with pytest.raises(SignallingClosedError):
        for _ in range(100):
            await session.send(large)
            await works(pair.near, pair.far)
    assert unread._waiting < 2 * (1 << 16)
    other = control(pair.near).open()
    await other.send(OFFER)
    assert await (await begun.get()).receive() == OFFER


async def test_messages_pass_a_transfer_that_fills_every_buffer(pair: Pair) -> None:
    begun = sessions_of(pair.far)
    stream = await pair.near.open_stream()
    writing = asyncio.create_task(stream.write(bytes(200_000_000)))
    there = await pair.far.accept_stream()
    await there.readexactly(1_000_000)
    session = control(pair.near).open()
    await session.send(OFFER)
    read = 0
    while begun.empty():
        read += len(await there.read(1 << 20))
    assert read < 100_000_000
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)


async def test_the_application_sees_its_own_streams_alone(pair: Pair) -> None:
    await control(pair.near).open().send(OFFER)
    accepted: list[Stream] = []

    async def accept() -> None:
        async for stream in pair.far:
            accepted.append(stream)  # noqa: PERF401  a comprehension would lose what there is at the end

    accepting = asyncio.create_task(accept())
    for number in range(3):
        stream = await pair.near.open_stream()
        await stream.write(bytes([number]))
    while len(accepted) < 3:
        await asyncio.sleep(0)
    assert [await stream.read() for stream in accepted] == [b"\0", b"\1", b"\2"]
    pair.near.close()
    await accepting
    assert len(accepted) == 3
    assert pair.near.alpn == pair.far.alpn == ALPN


@pytest.mark.parametrize("allowed", [0, 1, 3])
async def test_an_application_has_all_the_streams_that_its_peer_allows(allowed: int) -> None:
    config = TransportConfig(max_streams=allowed)
    async with (
        Endpoint.bind(alpns=[ALPN], host="127.0.0.1", config=config) as server,
        Endpoint.bind(host="127.0.0.1", config=config) as client,
    ):
        near = await client.connect(server.peer, alpn=ALPN, address=Address("127.0.0.1", server.port))
        far = await server.accept()
        for side in (near, far):
            opened = [await side.open_stream() for _ in range(allowed)]
            one_more = asyncio.create_task(side.open_stream())
            await asyncio.sleep(0.05)
            assert not one_more.done()
            one_more.cancel()
            assert len({stream.id for stream in opened}) == allowed
        begun = sessions_of(far)
        await control(near).open().send(OFFER)
        assert await (await begun.get()).receive() == OFFER


async def test_a_client_of_plain_quic_has_no_channel_and_its_first_stream_is_the_applications(
    endpoint: Endpoint, foreign: Callable[..., Foreign]
) -> None:
    client = foreign()
    client.connect(endpoint, [PLAIN])
    connection = await endpoint.accept()
    assert (connection.alpn, connection._control) == (ALPN, None)
    stream = client.connection.open(unidirectional=False)
    assert stream == 0
    client.write(stream, b"hello")
    there = await connection.accept_stream()
    assert (there.id, await there.read()) == (0, b"hello")


async def test_a_server_of_plain_quic_is_connected_to_without_a_channel(
    endpoint: Endpoint, foreign: Callable[..., Foreign]
) -> None:
    server = foreign(PLAIN)
    connection = await endpoint.connect(FOREIGN, alpn=ALPN, address=server.address)
    assert (connection.alpn, connection._control) == (ALPN, None)
    connected = await server.seen(_native.Event.Connected)
    assert isinstance(connected, _native.Event.Connected)
    assert connected.alpn == PLAIN
    assert (await connection.open_stream()).id == 0


async def test_a_server_that_allows_no_streams_gets_the_channel_with_the_first_it_allows(
    endpoint: Endpoint, foreign: Callable[..., Foreign]
) -> None:
    server = foreign(MARKED, config=TransportConfig(max_streams=0))
    connection = await endpoint.connect(FOREIGN, alpn=ALPN, address=server.address)
    session = control(connection).open()
    await session.send(OFFER)
    opening = asyncio.create_task(connection.open_stream())
    await asyncio.sleep(0.05)
    assert not opening.done()
    opening.cancel()


async def test_a_protocol_that_the_server_does_not_speak_is_refused_as_ever(endpoint: Endpoint) -> None:
    async with Endpoint.bind(host="127.0.0.1") as client:
        with pytest.raises(HandshakeError):
            await client.connect(endpoint.peer, alpn="other/1", address=Address("127.0.0.1", endpoint.port))


HELLO = encode(Hello(version=1))
BROKEN: dict[str, bytes] = {
    "garbage": os.urandom(64) + bytes(1 << 16),
    "no hello": encode(Say(session=0, body=body(OFFER))),
    "two hellos": HELLO + HELLO,
    "a frame that never ends": b"\xff\xff",
    "no signalling message": HELLO + encode(Say(session=0, body=b"?")),
    "too many sessions": HELLO
    + b"".join(encode(Say(session=2 * n, body=body(OFFER))) for n in range(MAX_SESSIONS + 1)),
    "a flood": HELLO + 2000 * encode(Say(session=0, body=body(Bye()))),
}


@pytest.fixture
async def marked(endpoint: Endpoint, foreign: Callable[..., Foreign]) -> tuple[Foreign, Connection]:
    """A client that has agreed on the mark and goes on as it likes; its stream 0 is open."""
    client = foreign()
    client.connect(endpoint, [MARKED])
    connection = await endpoint.accept()
    await client.seen(_native.Event.Connected)
    assert client.connection.open(unidirectional=False) == 0
    return client, connection


async def still_serves(client: Foreign, connection: Connection) -> None:
    stream = client.connection.open(unidirectional=False)
    assert stream is not None
    client.write(stream, b"hello")
    there = await connection.accept_stream()
    assert (there.id, await there.read()) == (stream, b"hello")
    assert not connection.is_closed


@pytest.mark.parametrize("what", BROKEN)
async def test_a_peer_that_breaks_the_rules_loses_the_channel_and_nothing_else(
    marked: tuple[Foreign, Connection], what: str
) -> None:
    client, connection = marked
    session = control(connection).open()
    await session.send(OFFER)
    client.write(0, BROKEN[what])
    stopped = await client.seen(_native.Event.Stopped)
    assert isinstance(stopped, _native.Event.Stopped)
    assert stopped.stream == 0
    with pytest.raises(SignallingClosedError):
        await session.receive()
    with pytest.raises(SignallingClosedError):
        await control(connection).open().send(OFFER)
    await still_serves(client, connection)


@pytest.mark.parametrize("how", ["reset", "stop", "finish"])
async def test_a_peer_that_gives_its_stream_up_loses_the_channel_and_nothing_else(
    marked: tuple[Foreign, Connection], how: str
) -> None:
    client, connection = marked
    session = control(connection).open()
    client.write(0, HELLO)
    await still_serves(client, connection)
    if how == "finish":
        client.connection.finish(0)
    else:
        getattr(client.connection, how)(0, 7)
    client.pump.wake()
    with pytest.raises(SignallingClosedError):
        await session.receive()
    await still_serves(client, connection)


async def test_a_channel_whose_stream_the_peer_never_uses_costs_the_application_nothing(
    marked: tuple[Foreign, Connection],
) -> None:
    client, connection = marked
    session = control(connection).open()
    for _ in range(100):
        try:
            await asyncio.wait_for(session.send(OFFER), 0.01)
        except asyncio.TimeoutError:
            break
    # A later stream opens those before it (RFC 9000 §3.2).
    await still_serves(client, connection)


async def test_a_connection_that_is_over_is_not_kept_by_its_channel(pair: Pair) -> None:
    await control(pair.near).open().send(OFFER)
    (stream,) = [reference() for reference in pair.near._streams.values()]
    assert stream is not None
    held = weakref.ref(stream)
    del stream
    pair.near.close()
    assert held() is None


@pytest.mark.parametrize("name", ["quice/1+", "quice/1+chat"])
async def test_a_name_that_could_be_taken_for_a_marked_one_is_refused(endpoint: Endpoint, name: str) -> None:
    with pytest.raises(ValueError, match="reserved"):
        Endpoint.bind(alpns=["chat", name])
    with pytest.raises(ValueError, match="reserved"):
        await endpoint.connect(FOREIGN, alpn=name, address=Address("127.0.0.1", 9))


def test_a_name_that_leaves_no_room_for_the_mark_goes_without() -> None:
    assert offered("x" * 247) == [b"quice/1+" + b"x" * 247, b"x" * 247]
    assert offered("x" * 248) == [b"x" * 248]
    assert agreed(b"quice/1+" + "ä".encode()) == ("ä", True)
    assert agreed(b"quice/2+chat") == ("quice/2+chat", False)


async def test_an_idle_connection_has_no_task_for_its_channel(pair: Pair) -> None:
    assert asyncio.all_tasks() == {asyncio.current_task()}
