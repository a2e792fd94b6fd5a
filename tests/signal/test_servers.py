"""An endpoint with several rendezvous servers; in the simulated internet."""

from __future__ import annotations

import asyncio

import pytest

from quice import Endpoint
from quice.errors import NoServerError
from quice.sim.simulation import Simulation
from quice.sim.world import World

ALPN = "test/1"


async def test_endpoints_find_each_other_at_the_next_server_when_the_first_dies(
    simulation: Simulation, world: World
) -> None:
    servers = [await simulation.server(name) for name in ("first", "second")]
    urls = [server.url for server in servers]
    with world.host("far"):
        far = await Endpoint.bind(server=urls, alpns=[ALPN])
    with world.host("near"):
        near = await Endpoint.bind(server=urls)
    assert near.server == far.server == urls[0]
    with world.hosts["first"]:
        await servers[0].__aexit__(None, None, None)
    await asyncio.sleep(1)
    with world.hosts["near"]:
        await near.connect(far.peer, alpn=ALPN)
        assert near.server == far.server == urls[1]
        await near.close()
    with world.hosts["far"]:
        await far.close()


async def test_an_endpoint_without_a_server_has_none_to_tell(world: World) -> None:
    with world.host("alone"):
        async with Endpoint.bind() as endpoint:
            with pytest.raises(NoServerError):
                _ = endpoint.server
