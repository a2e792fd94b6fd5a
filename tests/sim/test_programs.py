"""Whole programs in the simulated internet: endpoints and the server, unchanged."""

from __future__ import annotations

import pytest

from quice import Endpoint
from quice.server import Server
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
