"""A peer with which there is a connection, or a registration at the same server, and which floods what it can: it loses
what it abuses, and nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import random

import msgspec
import pytest

from fuzz.memory import resident
from quice import Connection, Endpoint, _native
from quice._native import Event
from quice.errors import ConnectionClosedError, SignallingError
from quice.identity import Identity
from quice.path import PathStatusChanged
from quice.server import Server
from quice.signal import inband, protocol
from quice.signal.inband import MAX_SESSIONS, Begun, End, Said, Say, Sessions
from quice.signal.messages import Answer, CandidateFound, SignalDecodeError, encode
from quice.signal.protocol import Delivered
from quice.signal.rendezvous import RendezvousClient
from quice.signal.seal import Seal
from quice.signal.sealed import RendezvousSignalling
from quice.signal.sequence import Envelope
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.simulation import Simulation
from quice.sim.world import World
from quice.wire import Address
from tests.engine.flow import Flow
from tests.engine.multihomed import CLIENT_HOSTS, PORT, SERVER_HOSTS, MultihomedPair
from tests.security.hostile import ALPN, PWD, named, offer, restart
from tests.security.victim import Victim
from tests.sim.sockets import address

MEBIBYTE = 1 << 20
OFFER = encode(offer([Address("192.0.2.1", 1)]))
CANDIDATE = encode(CandidateFound(candidate=named([Address("192.0.2.1", 1)])[0]))
PATHS_AT_ONCE = 8


class Two:
    """A connection between a peer that means no good and one that does, straight, and what each has of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.evil_host, self.good_host = world.host("evil"), world.host("good")
        self.evil: Connection
        self.good: Connection

    async def connect(self) -> Two:
        with self.good_host:
            self.endpoint = await Endpoint.bind(alpns=[ALPN])
            accepting = asyncio.create_task(self.endpoint.accept())
        with self.evil_host:
            endpoint = await Endpoint.bind(alpns=[ALPN])
            there = Address(address(self.good_host), self.endpoint.port)
            self.evil = await endpoint.connect(self.endpoint.peer, alpn=ALPN, address=there)
        self.good = await accepting
        await asyncio.sleep(1)
        return self

    async def flood(self, data: bytes) -> None:
        """Send this on the control channel, whatever it is."""
        control = self.evil._control
        assert control is not None
        with self.evil_host:
            control._write(data)
            await asyncio.sleep(5)

    async def still_talk(self) -> None:
        """Streams work as ever."""
        with self.evil_host:
            asking = await self.evil.open_stream()
            await asking.write(b"hello")
            asking.finish()
        answering = await self.good.accept_stream()
        assert await answering.read() == b"hello"


@pytest.fixture
async def two(world: World) -> Two:
    return await Two(world).connect()


def say(session: int, body: bytes = CANDIDATE) -> bytes:
    return inband.encode(Say(session=session, body=body))


FLOODS = {
    "offers": b"".join(say(2 * number, OFFER) for number in range(50, 2000)),
    "candidates": say(100, OFFER) + say(100) * 5000,
    "ends": b"".join(inband.encode(End(session=number)) for number in range(5000)),
    "sessions of nobody": b"".join(say(number << 40) for number in range(1, 3000)),
    "noise": bytes(range(256)) * 1000,
    "a frame without an end": (inband.MAX_FRAME - 1).to_bytes(2, "big") + bytes(100),
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
async def test_a_flood_of_the_control_channel_costs_it_and_nothing_else(two: Two, flood: bytes) -> None:
    before = resident()
    await two.flood(flood)
    assert resident() - before < 16 * MEBIBYTE
    control = two.good._control
    assert control is not None
    assert len(control._open) <= MAX_SESSIONS
    # Who only begins a frame may be about to end it.
    assert control._is_over is (flood != FLOODS["a frame without an end"])
    await two.still_talk()
    assert not two.good.is_closed


def test_a_peer_that_names_millions_of_sessions_has_eight_at_most() -> None:
    """At the rate that it may speak, for as long as it likes, each with a number of its own."""
    sessions, begun, now = Sessions(is_client=False), 0, 0.0
    list(sessions.receive(inband.encode(inband.Hello(version=1)), now))
    for number in range(20_000):
        now += 0.125
        session = number << 38 & ~1
        events = list(sessions.receive(say(session, OFFER) + inband.encode(End(session=session)), now))
        begun += sum(isinstance(event, Begun) for event in events)
        assert len(sessions._open) == 0
    assert begun == 20_000
    # And no end of those that do not end.
    with pytest.raises(SignalDecodeError, match="8 sessions"):
        for number in range(20_001, 20_020):
            now += 0.125
            list(sessions.receive(say(number << 38 & ~1, OFFER), now))
    assert len(sessions._open) == MAX_SESSIONS


def test_what_is_said_for_a_session_that_was_never_begun_is_nothing() -> None:
    sessions = Sessions(is_client=False)
    list(sessions.receive(inband.encode(inband.Hello(version=1)), 0.0))
    for number in (1, 3, 2, 1 << 52):
        assert not [each for each in sessions.receive(say(number), 0.0) if isinstance(each, Said)]
    assert not list(sessions.receive(say(2, encode(Answer(ufrag="abcd", pwd=PWD))), 0.0))


async def test_restarts_without_end_leave_one_session(two: Two) -> None:
    victim = Victim(two.world)
    control = two.evil._control
    assert control is not None
    upkeep = two.good._upkeep
    with two.evil_host:
        for number in range(200):
            session = control.open()
            with contextlib.suppress(SignallingError):
                await session.send(restart(victim.addresses(10), number))
            await asyncio.sleep(0.1)
            await session.close()
        await asyncio.sleep(60)
    assert upkeep is not None
    assert len(two.endpoint._surroundings._receivers) <= 2
    assert len(upkeep._offers) <= 16
    await two.still_talk()


def test_a_peer_opens_a_few_paths_and_no_more() -> None:
    pair = MultihomedPair()
    near, far = pair.connected()
    opened = 0
    for round_ in range(50):
        for client, server in zip(CLIENT_HOSTS, SERVER_HOSTS, strict=True):
            with contextlib.suppress(_native.PathRefused):
                opened += near.open_path((server, PORT), client, backup=True) is not None
        pair.advance(0.5)
        for path in near.paths()[1:]:
            if round_ % 2:
                near.close_path(path["id"])  # type: ignore[arg-type]
        assert len(far.paths()) <= PATHS_AT_ONCE + 1
    assert opened > 20
    assert not pair.server.seen(Event.Lost)


def test_a_flood_of_path_statuses_costs_nothing() -> None:
    pair = MultihomedPair()
    near, far = pair.connected()
    second = pair.second_path(near)
    before = resident()
    for number in range(20_000):
        near.set_path_status(second, backup=number % 2 == 0)
        pair.advance(0.001)
        pair.client.events.clear()
        pair.server.events.clear()
    assert resident() - before < 8 * MEBIBYTE
    assert len(far.paths()) == 2
    flow = Flow(pair, near, far, 1 << 18)
    flow.run(within=5.0)
    flow.check()


async def test_events_of_paths_that_nobody_reads_are_not_kept_without_end(two: Two) -> None:
    events = two.good.path_events()
    path = two.evil._native.paths()[0]["id"]
    with two.evil_host:
        for number in range(3000):
            two.evil._native.set_path_status(path, backup=number % 2 == 0)  # type: ignore[arg-type]
            two.evil._pump.wake()
            await asyncio.sleep(0.01)
    kept = 0
    two.good.close()
    async for event in events:
        kept += isinstance(event, PathStatusChanged)
    assert kept <= 1000


async def registered(host: Host, url: str, number: int) -> RendezvousClient:
    with host:
        client = RendezvousClient(url, Identity(bytes((number,)) * 32), lambda session: None)
        await client.start()
    return client


async def test_a_peer_that_sends_noise_has_so_much_of_it_looked_at_and_no_more(
    simulation: Simulation,
) -> None:
    """It takes a signature's time to find out that something is noise. Another peer gets through all the while."""
    with simulation.world.host("target"):
        begun: list[RendezvousSignalling] = []
        client = RendezvousClient("ws://server", Identity(b"t" * 32), begun.append)
    evil, good = Identity(b"e" * 32), Identity(b"g" * 32)
    seconds = 60
    for number in range(100 * seconds):
        noise = Delivered(sender=evil.peer.key, session=number.to_bytes(16, "big"), body=bytes(600))
        client.on_frame(protocol.encode(noise), None)  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
    assert 128 < client.sessions.unopened <= 128 + 16 * seconds
    session = bytes(16)
    envelope = msgspec.msgpack.encode(Envelope(1, 0, OFFER))
    body = Seal(good, client.identity.peer, session, random.Random(1)).seal(envelope)
    client.on_frame(protocol.encode(Delivered(sender=good.peer.key, session=session, body=body)), None)  # type: ignore[arg-type]
    assert [each.peer for each in begun] == [good.peer]
    await client.close()


async def test_one_caller_does_not_keep_the_others_out(world: World, rendezvous: Server) -> None:
    evil, alice = world.host("evil"), world.site(nat=Nat.FULL_CONE).host("alice")
    bob = world.site(nat=Nat.FULL_CONE).host("bob")
    with bob:
        far = await Endpoint.bind(server=rendezvous.url, alpns=[ALPN])
    caller = await registered(evil, rendezvous.url, 7)
    with evil:
        for number in range(300):
            session = caller.open(far.peer)
            with contextlib.suppress(SignallingError):
                await session.send(offer([Address("192.0.2.1", 1 + number)], ufrag="abcd"))
    await asyncio.sleep(3)
    assert far._introductions._responding.total() == 16
    with alice:
        near = await Endpoint.bind(server=rendezvous.url)
        connection = await near.connect(far.peer, alpn=ALPN)
        assert connection.connect_seconds is not None
        assert connection.connect_seconds < 1
    with contextlib.suppress(ConnectionClosedError):
        connection.close()
