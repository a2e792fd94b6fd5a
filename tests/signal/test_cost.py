"""What the default protocol costs a connection: round trips and bytes; in the simulated internet."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from quice import Endpoint
from quice.server import Server
from quice.server.app import DEFAULT_PORT
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.packet import Fate, Passage, Protocol
from quice.sim.simulation import Simulation

ALPN = "test/1"
DELAY = 0.025
ROUND_TRIP = 4 * DELAY
"""To the server, to the peer, and back."""
_TCP_HEADER = 13
"""Of the simulated TCP."""


class AtTheServer:
    """Bytes of the WebSockets that reach and leave the server, and when something reaches a host from there."""

    def __init__(self) -> None:
        self.bytes: Counter[str] = Counter()
        self.arrivals: dict[str, list[float]] = {}

    def __call__(self, passage: Passage) -> None:
        time, place, fate, packet = passage
        content = len(packet.data) - _TCP_HEADER
        if packet.protocol is not Protocol.TCP or content <= 0:
            return
        if packet.destination.port == DEFAULT_PORT and place == "server" and fate is Fate.DELIVERED:
            self.bytes["in"] += content
        elif packet.source.port == DEFAULT_PORT and place == "server" and fate is Fate.SENT:
            self.bytes["out"] += content
        elif packet.source.port == DEFAULT_PORT and fate is Fate.DELIVERED:
            self.arrivals.setdefault(place, []).append(time)


async def test_a_connection_costs_one_round_trip_to_the_first_candidates_and_a_few_kilobytes(
    simulation: Simulation, rendezvous: Server
) -> None:
    near_by = Conditions(delay=DELAY)
    sites = [simulation.world.site(nat=Nat.PORT_RESTRICTED, uplink=near_by) for _ in range(2)]
    alice, bob = (site.host(name) for site, name in zip(sites, ("alice", "bob"), strict=True))
    with bob:
        far = await Endpoint.bind(server=rendezvous.url, alpns=[ALPN])
    with alice:
        near = await Endpoint.bind(server=rendezvous.url)
    await asyncio.sleep(5)
    server = AtTheServer()
    simulation.world.watch(server)
    started = simulation.loop.time()
    with alice:
        await near.connect(far.peer, alpn=ALPN)
    await asyncio.sleep(10)
    assert server.arrivals["alice"][0] - started == pytest.approx(ROUND_TRIP, abs=0.001)
    # An offer and an answer with their candidates, the ends of these, and an acknowledgement, each with a seal of 112
    # bytes: 2,039 bytes reached the server, and 2,049 left it.
    assert 1500 < server.bytes["in"] < 2200
    assert 1500 < server.bytes["out"] < 2200
    await near.close()
    await far.close()
