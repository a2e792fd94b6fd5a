"""Whole programs in the simulated internet: endpoints and the server, unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from quice import Address, Connection, Endpoint, Identity
from quice.server import Server
from quice.signal import signalling_pair
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.simulation import Simulation

NEAR = Conditions(delay=0.025)


@pytest.fixture
def simulation() -> Iterator[Simulation]:
    with Simulation(seed=1) as simulation:
        yield simulation


def test_two_peers_behind_nats_connect_and_talk(simulation: Simulation) -> None:
    world = simulation.world
    server = simulation.machine(world.host("server"))
    alice = simulation.machine(world.site(nat=Nat.PORT_RESTRICTED, uplink=NEAR).host("alice"))
    bob = simulation.machine(world.site(nat=Nat.PORT_RESTRICTED, uplink=NEAR).host("bob"))

    async def answer(endpoint: Endpoint) -> None:
        connection = await endpoint.accept()
        stream = await connection.accept_stream()
        await stream.write(await stream.read())
        stream.finish()
        await connection.wait_closed()

    async def main() -> float:
        with server.active():
            service = await Server().__aenter__()
        with bob.active():
            far = await Endpoint.bind(server=service.url, alpns=["test/1"])
            answering = asyncio.create_task(answer(far))
        with alice.active():
            near = await Endpoint.bind(server=service.url)
            await asyncio.sleep(1)
            async with await near.connect(far.peer, alpn="test/1") as connection:
                stream = await connection.open_stream()
                await stream.write(b"hello")
                assert await stream.read() == b"hello"
                print(connection.paths, connection.report)
            await near.close()
        await answering
        await far.close()
        await service.__aexit__(None, None, None)
        return connection.connect_seconds

    assert simulation.run(main()) == pytest.approx(0.2, abs=0.03)


def test_a_host_behind_a_one_to_one_nat_is_reached_by_its_declared_address_without_a_stun_server(
    simulation: Simulation,
) -> None:
    world = simulation.world
    cloud = world.site(nat=Nat.FULL_CONE, uplink=NEAR)
    alice = simulation.machine(world.site(nat=Nat.PORT_RESTRICTED, uplink=NEAR).host("alice"))
    bob = simulation.machine(cloud.host("bob"))

    async def main() -> Connection:
        ours, theirs = signalling_pair()
        with bob.active():
            far = await Endpoint.bind(alpns=["test/1"], external_addresses=cloud.external)
            responding = asyncio.create_task(far.respond(identity.peer, theirs))
        with alice.active():
            near = await Endpoint.bind(identity)
            connection = await near.connect(far.peer, alpn="test/1", signalling=ours)
            path = connection.paths[0]
            assert path.remote == Address(cloud.external[0], far.port)
        await responding
        await near.close()
        await far.close()
        return connection

    identity = Identity.generate()
    assert simulation.run(main()).connect_seconds < 0.5
