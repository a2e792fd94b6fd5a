"""Streams to servers in the simulated internet."""

from __future__ import annotations

import asyncio

import pytest

from quice.errors import RelayUnreachableError
from quice.sim import Conditions, Nat
from quice.sim.simulation import Simulation
from quice.sim.world import World
from quice.tunnel import open_tunnel
from tests.turn.streams import echo


async def test_a_stream_leads_through_a_nat_to_a_host_by_its_name(world: World, simulation: Simulation) -> None:
    relay = world.host("relay")
    alice = world.site(nat=Nat.SYMMETRIC, uplink=Conditions(delay=0.025)).host("alice")
    with relay:
        server = await asyncio.start_server(echo, port=3478)
    with alice:
        started = simulation.loop.time()
        tunnel = await open_tunnel("relay", 3478, tls=False)
        # One round trip: a name costs nothing here.
        assert simulation.loop.time() - started == pytest.approx(0.05, abs=0.005)
        assert tunnel.remote.port == 3478
        heard = asyncio.Event()
        pieces: list[bytes] = []

        def take(data: bytes) -> None:
            pieces.append(data)
            if b"".join(pieces) == b"hello" * 1000:
                heard.set()

        tunnel.on_data = take
        tunnel.send(b"hello" * 1000)
        await heard.wait()
        tunnel.close()
    server.close()


async def test_the_proxy_of_the_real_machine_is_none_of_a_simulated_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://192.0.2.1:3128")
    relay, alice = world.host("relay"), world.host("alice")
    with relay:
        server = await asyncio.start_server(echo, port=3478)
    with alice:
        (await open_tunnel("relay", 3478, tls=False)).close()
    server.close()


async def test_a_link_that_is_cut_is_given_up_in_time(world: World, simulation: Simulation) -> None:
    site = world.site(nat=Nat.PORT_RESTRICTED)
    alice = site.host("alice")
    world.host("relay")
    site.link.cut()
    with alice:
        started = simulation.loop.time()
        with pytest.raises(RelayUnreachableError, match="no stream within 3 s"):
            await open_tunnel("relay", 3478, tls=False, timeout=3.0)
        assert simulation.loop.time() - started == 3.0
