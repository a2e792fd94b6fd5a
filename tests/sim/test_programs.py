"""Whole programs in the simulated internet: endpoints and the server, unchanged."""

from __future__ import annotations

import pytest

from quice import Address, Endpoint, Identity
from quice.server import Server
from quice.signal import signalling_pair
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.simulation import Simulation

NEAR = Conditions(delay=0.025)


async def echo(endpoint: Endpoint) -> None:
    """Answer every connection's first stream with what it brings."""
    async for connection in endpoint:
        stream = await connection.accept_stream()
        await stream.write(await stream.read())
        stream.finish()


async def test_two_peers_behind_nats_connect_and_talk(simulation: Simulation, rendezvous: Server) -> None:
    alice, bob = (simulation.world.site(nat=Nat.PORT_RESTRICTED, uplink=NEAR).host(name) for name in ("alice", "bob"))
    with bob:
        far = await Endpoint.bind(server=rendezvous.url, alpns=["test/1"])
        bob.start(echo(far))
    with alice:
        near = await Endpoint.bind(server=rendezvous.url)
        async with await near.connect(far.peer, alpn="test/1") as connection:
            stream = await connection.open_stream()
            await stream.write(b"hello")
            stream.finish()
            assert await stream.read() == b"hello"
            assert connection.connect_seconds == pytest.approx(0.2, abs=0.03)


async def test_the_first_request_is_answered_one_round_trip_after_the_handshake(
    simulation: Simulation, rendezvous: Server
) -> None:
    alice, bob = (simulation.world.site(uplink=NEAR).host(name) for name in ("alice", "bob"))
    with bob:
        far = await Endpoint.bind(server=rendezvous.url, alpns=["test/1"])
        bob.start(echo(far))
    with alice:
        near = await Endpoint.bind(server=rendezvous.url)
        async with await near.connect(far.peer, alpn="test/1") as connection:
            connected = simulation.loop.time()
            stream = await connection.open_stream()
            await stream.write(bytes(100))
            stream.finish()
            await stream.read()
            # What both have to say by then is less than an initial window: nothing of it is paced.
            assert simulation.loop.time() - connected == pytest.approx(0.1, abs=0.001)


async def test_a_host_behind_a_one_to_one_nat_is_reached_by_its_declared_address_without_a_stun_server(
    simulation: Simulation,
) -> None:
    cloud = simulation.world.site(nat=Nat.FULL_CONE, uplink=NEAR)
    alice = simulation.world.site(nat=Nat.PORT_RESTRICTED, uplink=NEAR).host("alice")
    bob = cloud.host("bob")
    identity = Identity.generate()
    ours, theirs = signalling_pair()
    with bob:
        far = await Endpoint.bind(alpns=["test/1"], external_addresses=cloud.external)
        bob.start(far.respond(identity.peer, theirs))
    with alice:
        near = await Endpoint.bind(identity)
        async with await near.connect(far.peer, alpn="test/1", signalling=ours) as connection:
            assert connection.paths[0].remote == Address(cloud.external[0], far.port)
            assert connection.connect_seconds < 0.5
