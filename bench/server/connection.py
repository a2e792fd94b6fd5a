"""What signalling costs a connection: in the simulated internet, where nothing else is in the way."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from quice import Endpoint
from quice.server.app import DEFAULT_PORT
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.packet import Fate, Passage, Protocol
from quice.sim.simulation import Simulation

_ALPN = "bench/1"
_DELAY = 0.025
_ROUND_TRIP = 4 * _DELAY
"""To the server, to the other peer, and back."""
_TCP_HEADER = 13
"""Of the simulated TCP."""
_REST = 10.0
"""Seconds, before as after, in which what has nothing to do with the connection ends."""


@dataclass
class Cost:
    """Of one connection: bytes of the WebSockets at the server, and when the first of them came to the initiator."""

    received: int = 0
    sent: int = 0
    first: float | None = None

    def __call__(self, passage: Passage) -> None:
        time, place, fate, packet = passage
        content = len(packet.data) - _TCP_HEADER
        if packet.protocol is not Protocol.TCP or content <= 0:
            return
        if packet.destination.port == DEFAULT_PORT and place == "server" and fate is Fate.DELIVERED:
            self.received += content
        elif packet.source.port == DEFAULT_PORT and place == "server" and fate is Fate.SENT:
            self.sent += content
        elif packet.source.port == DEFAULT_PORT and place == "alice" and fate is Fate.DELIVERED and self.first is None:
            self.first = time


def cost_of_a_connection() -> tuple[float, Cost]:
    """Round trips to the first remote candidate, and what all of it costs the server, between two peers behind NATs."""
    with Simulation(seed=1) as simulation:
        return simulation.run(_connect(simulation))


async def _connect(simulation: Simulation) -> tuple[float, Cost]:
    server = await simulation.server(relay=False)
    sites = [simulation.world.site(nat=Nat.PORT_RESTRICTED, uplink=Conditions(delay=_DELAY)) for _ in range(2)]
    alice, bob = (site.host(name) for site, name in zip(sites, ("alice", "bob"), strict=True))
    with bob:
        far = await Endpoint.bind(server=server.url, alpns=[_ALPN])
    with alice:
        near = await Endpoint.bind(server=server.url)
    await asyncio.sleep(_REST)
    cost = Cost()
    simulation.world.watch(cost)
    started = simulation.loop.time()
    with alice:
        await near.connect(far.peer, alpn=_ALPN)
    await asyncio.sleep(_REST)
    await near.close()
    await far.close()
    assert cost.first is not None
    return (cost.first - started) / _ROUND_TRIP, cost
