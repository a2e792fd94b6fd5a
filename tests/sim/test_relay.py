"""The TURN service in the simulated internet: the same server, on a data path of the simulator."""

from __future__ import annotations

import contextlib

import pytest

from quice.server import Server
from quice.server.relay import RelaySettings
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.simulation import Simulation
from quice.turn.events import Allocated, Bound
from tests.server.relayed import SECRET, relayed_peer


@pytest.fixture
def host(simulation: Simulation) -> Host:
    return simulation.world.host("relay")


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
async def test_two_clients_behind_nats_reach_each_other_by_their_relayed_addresses(
    simulation: Simulation, host: Host, tcp: bool
) -> None:
    alice = simulation.world.site("home", nat=Nat.SYMMETRIC).host("alice")
    bob = simulation.world.site("office", nat=Nat.SYMMETRIC).host("bob")
    async with contextlib.AsyncExitStack() as stack:
        with host:
            server = await stack.enter_async_context(Server(relay=RelaySettings(secret=SECRET)))
        with alice:
            one = await stack.enter_async_context(relayed_peer(server, tcp=tcp, local=("0.0.0.0", 0)))
        with bob:
            other = await stack.enter_async_context(relayed_peer(server, local=("0.0.0.0", 0)))
        await one.event(Allocated)
        await other.event(Allocated)
        assert {one.relayed[0].host, other.relayed[0].host} == {server.stun.host}
        one.bind(other.relayed[0])
        other.bind(one.relayed[0])
        await one.event(Bound)
        await other.event(Bound)
        one.send(b"hello", other.relayed[0])
        assert await other.received() == (b"hello", one.relayed[0])
        other.send(b"back", one.relayed[0])
        assert await one.received() == (b"back", other.relayed[0])
