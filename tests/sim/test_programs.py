"""Whole programs in the simulated internet: endpoints and the server, unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from quice import Endpoint
from quice.server import Server
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
