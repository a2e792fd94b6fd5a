"""`python -m tests.sim.session SEED`: a whole session in bad weather; prints the digest of all its packets."""

from __future__ import annotations

import asyncio
import sys

from quice import Endpoint
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.simulation import Simulation
from quice.sim.trace import Digest

WEATHER = Conditions(delay=0.02, jitter=0.01, loss=0.03, reordering=0.03, duplication=0.02, corruption=0.01)
SIZE = 200_000


async def echo(endpoint: Endpoint) -> None:
    """Answer every stream of every connection with what it brings."""
    async for connection in endpoint:
        stream = await connection.accept_stream()
        while data := await stream.read():
            await stream.write(data)
        stream.finish()


async def session(simulation: Simulation) -> None:
    """Two peers find each other through a server, exchange data, lose their link for a second, and part."""
    sites = [simulation.world.site(nat=nat, ipv6=True, uplink=WEATHER) for nat in (Nat.PORT_RESTRICTED, Nat.SYMMETRIC)]
    alice, bob = sites[0].host("alice"), sites[1].host("bob")
    server = await simulation.server(ipv6=True)
    with bob:
        far = await Endpoint.bind(server=server.url, alpns=["test/1"])
        bob.start(echo(far))
    with alice:
        async with (
            Endpoint.bind(server=server.url) as near,
            await near.connect(far.peer, alpn="test/1") as connection,
        ):
            stream = await connection.open_stream()
            writing = asyncio.create_task(stream.write(bytes(SIZE)))
            await asyncio.sleep(0.2)
            sites[0].link.cut()
            await asyncio.sleep(1)
            sites[0].link.mend()
            await writing
            stream.finish()
            await stream.readexactly(SIZE)
    await far.close()


def digest(seed: int) -> str:
    """What a run with this seed is, packet by packet."""
    found = Digest()
    with Simulation(seed) as simulation:
        simulation.world.watch(found)
        simulation.run(session(simulation))
    return f"{simulation.loop.time():.9f} {found.hexdigest()}"


if __name__ == "__main__":
    print(digest(int(sys.argv[1])))
