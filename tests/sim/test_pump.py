"""The engine on a simulated host: its packets, its timers, its context."""

from __future__ import annotations

import asyncio

import pytest

from quice import Endpoint, _native
from quice.config import TransportConfig
from quice.machine import this_machine
from quice.sim.host import Host
from quice.sim.link import Conditions
from quice.sim.packet import Packet, Protocol
from quice.sim.simulation import Simulation
from quice.sim.world import World
from quice.wire import Address, Transmit
from tests.sim.sockets import Socket, address


@pytest.fixture
def world(simulation: Simulation) -> World:
    return simulation.world


@pytest.fixture
def alice(world: World) -> Host:
    return world.host("alice", ipv6=1, link=Conditions(delay=0.02))


@pytest.fixture
def bob(world: World) -> Host:
    return world.host("bob", ipv6=1, link=Conditions(delay=0.02))


class Events:
    """What a pump tells, and where that was."""

    def __init__(self, host: Host) -> None:
        self.seen: list[tuple[bytes, str]] = []
        with host:
            credentials = _native.Credentials.raw_key(bytes(32))
            self.pump = this_machine().pump(credentials, (), TransportConfig(), self._note)

    def _note(self, event: _native.Event) -> None:
        if isinstance(event, _native.Event.Packet):
            machine = this_machine()
            assert hasattr(machine, "host")
            self.seen.append((event.data, machine.host.name))


STUN = bytes.fromhex("00010000 2112a442") + bytes(12)
"""A Binding request, which the demultiplexer hands on."""


async def test_packets_to_an_endpoint_arrive_in_its_context(alice: Host, bob: Host) -> None:
    events = Events(bob)
    local = events.pump.bind("0.0.0.0", 0)
    with alice:
        Socket(alice).send(STUN, Address(address(bob), local.port))
        await asyncio.sleep(1)
    assert events.seen == [(STUN, "bob")]


async def test_a_datagram_leaves_by_the_binding_of_its_family_or_not_at_all(alice: Host, bob: Host) -> None:
    events = Events(alice)
    local = events.pump.bind("0.0.0.0", 0)
    four, six = Socket(bob, "0.0.0.0", 9), Socket(bob, "::", 9)
    events.pump.send(Transmit(b"four", None, Address(address(bob), 9)))
    events.pump.send(Transmit(b"six", None, Address(address(bob, version=6), 9)))
    # The kernel refuses it, which is a lost datagram.
    events.pump.send(Transmit(bytes(70_000), None, Address(address(bob), 9)))
    await asyncio.sleep(1)
    assert four.texts == [b"four"]
    assert four.received[0].source == Address(address(alice), local.port)
    assert not six.texts


async def test_a_closed_pump_frees_its_port_and_tells_nothing_more(alice: Host, bob: Host) -> None:
    events = Events(bob)
    local = events.pump.bind("0.0.0.0", 0)
    Socket(alice).send(STUN, Address(address(bob), local.port))
    await asyncio.sleep(0.01)
    events.pump.close()
    events.pump.close()
    await asyncio.sleep(1)
    assert not events.seen
    received: list[Packet] = []
    bob.bind(Protocol.UDP, local, received.append)


async def test_an_endpoint_that_sleeps_goes_on_where_it_was(simulation: Simulation, alice: Host, bob: Host) -> None:
    """QUIC's own timers and retransmissions, over a pause shorter than the idle timeout."""
    with bob:
        far = await Endpoint.bind(alpns=["test/1"])
    with alice:
        near = await Endpoint.bind()
        there = next(each for each in far.addresses if each.ip.version == 4)
        connection = await near.connect(far.peer, alpn="test/1", address=there)
        stream = await connection.open_stream()
        bob.sleep()
        await stream.write(b"hello")
        await asyncio.sleep(5)
        bob.wake()
        awake = simulation.loop.time()
        accepted = await (await far.accept()).accept_stream()
        assert await accepted.readexactly(5) == b"hello"
        assert simulation.loop.time() - awake < 10
