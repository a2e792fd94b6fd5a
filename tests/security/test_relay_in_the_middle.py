"""A relay sees and may alter all that goes through it: it can read nothing, and what arrives is right or does not."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Iterable

import pytest

from quice import Endpoint
from quice.errors import ConnectError, ConnectionClosedError, HandshakeError
from quice.identity import Identity
from quice.server import Server
from quice.server.relay import RelaySettings
from quice.sim.host import Host
from quice.sim.packet import Packet
from quice.sim.simulation import Simulation
from quice.turn.events import Allocated, Bound
from quice.wire import Address
from tests.security.hostile import ALPN
from tests.security.tampering import Tamper, Tampering
from tests.server.relayed import SECRET, relayed_peer

TEXT = b"only the two of us can read this"
SIZE = 200_000


class Evil:
    """What an evil relay does, with dice of its own."""

    def __init__(self) -> None:
        self.rng = random.Random(7)
        self.kept: list[Packet] = []

    def flip(self, packet: Packet) -> Iterable[Packet]:
        """Turn a bit of every tenth packet."""
        if self.rng.random() < 0.1:
            data = bytearray(packet.data)
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
            packet = packet._replace(data=bytes(data))
        return (packet,)

    def drop(self, packet: Packet) -> Iterable[Packet]:
        """Lose every tenth."""
        return () if self.rng.random() < 0.1 else (packet,)

    def duplicate(self, packet: Packet) -> Iterable[Packet]:
        """Send every third again."""
        return (packet, packet) if self.rng.random() < 0.3 else (packet,)

    def reorder(self, packet: Packet) -> Iterable[Packet]:
        """Hold every fifth back until another comes."""
        if self.rng.random() < 0.2:
            self.kept.append(packet)
            return ()
        kept, self.kept = self.kept, []
        return (packet, *kept)

    def inject(self, packet: Packet) -> Iterable[Packet]:
        """Add packets of its own beside the true ones: noise, and beginnings of true ones that end in noise."""
        size = len(packet.data)
        noise = self.rng.randbytes(size)
        half = packet.data[: size // 2] + self.rng.randbytes(size - size // 2)
        return (packet._replace(data=noise), packet._replace(data=half), packet)

    def replay(self, packet: Packet) -> Iterable[Packet]:
        """Send old packets once more, much later."""
        self.kept.append(packet)
        return (packet, self.rng.choice(self.kept)) if self.rng.random() < 0.3 else (packet,)

    def swap(self, packet: Packet) -> Iterable[Packet]:
        """Deliver what is for one of the two to the other."""
        self.kept.append(packet)
        if self.rng.random() < 0.2:
            other = self.rng.choice(self.kept)
            return (packet, packet.between(other.source, other.destination))
        return (packet,)

    def truncate(self, packet: Packet) -> Iterable[Packet]:
        """Cut every tenth short."""
        if self.rng.random() < 0.1:
            packet = packet._replace(data=packet.data[: self.rng.randrange(1, len(packet.data) + 1)])
        return (packet,)


TRICKS = [Evil.flip, Evil.drop, Evil.duplicate, Evil.reorder, Evil.inject, Evil.replay, Evil.swap, Evil.truncate]


def payload(seed: int) -> bytes:
    """Bytes to send, with a text that is easy to find, again and again."""
    rng = random.Random(seed)
    return b"".join(TEXT + rng.randbytes(68) for _ in range(SIZE // 100))


async def answer(endpoint: Endpoint, received: list[bytes]) -> None:
    """Keep all that comes on a stream, and send it back."""
    with contextlib.suppress(ConnectionClosedError):
        stream = await (await endpoint.accept()).accept_stream()
        while data := await stream.read():
            received.append(data)
            await stream.write(data)
        stream.finish()


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
async def test_what_arrives_through_an_evil_relay_is_right_or_the_connection_ends(
    simulation: Simulation, trick: Callable[[Evil, Packet], Iterable[Packet]]
) -> None:
    world, evil = simulation.world, Evil()
    server, alice, bob = world.host("server"), world.host("alice"), world.host("bob")
    with server:
        service = await Server(relay=RelaySettings()).__aenter__()
    tampering = Tampering(server)
    sent, received, back = payload(1), list[bytes](), b""
    with bob:
        far = await Endpoint.bind(server=service.url, alpns=[ALPN], policy="relay")
        bob.start(answer(far, received))
    with alice:
        near = await Endpoint.bind(server=service.url, policy="relay")
        await asyncio.sleep(1)
        with contextlib.suppress(ConnectError, ConnectionClosedError):
            connection = await near.connect(far.peer, alpn=ALPN, policy="relay")
            stream = await connection.open_stream()
            tampering.tamper = lambda packet: trick(evil, packet)
            writing = asyncio.create_task(stream.write(sent))
            with contextlib.suppress(asyncio.IncompleteReadError):
                back = await asyncio.wait_for(stream.readexactly(len(sent)), 60)
            await writing
    there = b"".join(received)
    assert tampering.altered > 20
    assert there == sent[: len(there)]
    assert back == sent[: len(back)]
    # All of these are but bad weather to QUIC.
    assert len(back) == len(sent)
    assert not tampering.has_seen(TEXT)
    assert tampering.has_seen(near.peer.key) is False


async def plain(simulation: Simulation, tamper: Tamper) -> tuple[Tampering, bytes]:
    """What a datagram becomes that nobody has sealed, through the same relay."""
    world = simulation.world
    server, alice, bob = world.host("server"), world.host("alice"), world.host("bob")
    async with contextlib.AsyncExitStack() as stack:
        with server:
            service = await stack.enter_async_context(Server(relay=RelaySettings(secret=SECRET)))
        with alice:
            one = await stack.enter_async_context(relayed_peer(service, local=("0.0.0.0", 0)))
        with bob:
            other = await stack.enter_async_context(relayed_peer(service, local=("0.0.0.0", 0)))
        await one.event(Allocated)
        await other.event(Allocated)
        one.bind(other.relayed[0])
        other.bind(one.relayed[0])
        await one.event(Bound)
        await other.event(Bound)
        tampering = Tampering(server, tamper)
        one.send(TEXT, other.relayed[0])
        return tampering, (await other.received())[0]


def test_the_same_tricks_do_read_and_alter_what_is_not_sealed(simulation: Simulation) -> None:
    def alter(packet: Packet) -> Iterable[Packet]:
        return (packet._replace(data=packet.data.replace(b"only", b"not ")),)

    tampering, arrived = simulation.run(plain(simulation, alter))
    assert tampering.has_seen(TEXT)
    assert arrived == TEXT.replace(b"only", b"not ")


async def impostor(host: Host) -> Endpoint:
    """An endpoint with a key of its own that would take any connection."""
    with host:
        return await Endpoint.bind(Identity(b"e" * 32), alpns=[ALPN])


async def test_who_answers_in_the_peers_place_is_found_out(simulation: Simulation) -> None:
    world = simulation.world
    eve, alice = world.host("eve"), world.host("alice")
    false = await impostor(eve)
    accepting = asyncio.ensure_future(false.accept())
    with alice:
        near = await Endpoint.bind()
        with pytest.raises(HandshakeError):
            await near.connect(Identity(b"b" * 32).peer, alpn=ALPN, address=false.addresses[0])
    await asyncio.sleep(5)
    assert not accepting.done()
    accepting.cancel()


async def test_a_relay_in_the_middle_of_two_handshakes_is_found_out(simulation: Simulation) -> None:
    """It sends the first packets of alice's on to an endpoint of its own, and so would be between two connections."""
    world = simulation.world
    eve, alice, bob = (world.host(name) for name in ("eve", "alice", "bob"))
    false = await impostor(eve)
    with bob:
        far = await Endpoint.bind(alpns=[ALPN])
    there, elsewhere = far.addresses[0], false.addresses[0]

    def divert(packet: Packet) -> Iterable[Packet]:
        if packet.destination == there:
            return (packet.between(packet.source, elsewhere),)
        if packet.source == elsewhere:
            return (packet.between(there, packet.destination),)
        return (packet,)

    tampering = Tampering(alice, divert)
    with alice:
        near = await Endpoint.bind()
        with pytest.raises(HandshakeError):
            await near.connect(far.peer, alpn=ALPN, address=Address(*there))
    assert tampering.altered > 0
