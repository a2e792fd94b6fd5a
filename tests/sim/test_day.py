"""A day in the life of a connection: each hour one of the two goes to another network, and the server is restarted
every few hours. In the end there is no more of anything than in the morning.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from quice import Connection, Endpoint, PathKind
from quice.server import Server
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.simulation import Simulation

ALPN = "day/1"
HOUR = 3600.0
RESTARTS = 6
"""Hours from one restart of the server to the next."""
WARM = 8
"""Hours after which everything has happened once."""
DAY = 24
_TICK = 20.0
"""Seconds from one word to the next."""
_SETTLED = 120.0
"""Seconds from what happens in an hour to the count."""


@dataclass(frozen=True)
class Count:
    """How much there is of what may not become more and more."""

    paths: tuple[int, int]
    receivers: tuple[int, int]
    spawned: tuple[int, int]
    allocations: int
    links: tuple[int, int]
    peers: tuple[int, int]
    """Whom the relays of each let in."""
    tasks: int
    timers: int
    objects: int
    memory: int
    """Bytes that the process has, the engine's with them."""


class Day:
    """Two peers, a server, and networks to go to."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        world = simulation.world
        self._places = [world.site(nat=Nat.PORT_RESTRICTED, uplink=Conditions(delay=0.025)) for _ in range(4)]
        self._hosts = [self._places[0].host("near"), self._places[1].host("far")]
        self._server_host = world.host("server")
        self._at = [0, 1]
        self._heard = [0, 0]

    async def live(self) -> tuple[Count, Count]:
        """What there is in the morning, and in the end."""
        async with contextlib.AsyncExitStack() as stack:
            server = await self._serve()
            near_host, far_host = self._hosts
            with far_host:
                far = await stack.enter_async_context(Endpoint.bind(server=server.url, alpns=[ALPN]))
            with near_host:
                near = await stack.enter_async_context(Endpoint.bind(server=server.url))
                await asyncio.sleep(1)
                one = await near.connect(far.peer, alpn=ALPN)
                talking = [asyncio.create_task(_talk(one, self._heard, 0, opens=True))]
            with far_host:
                other = await far.accept()
                talking.append(asyncio.create_task(_talk(other, self._heard, 1, opens=False)))
            counts = []
            for hour in range(1, DAY + 1):
                await asyncio.sleep(HOUR / 2)
                if hour % RESTARTS == 0:
                    await server.__aexit__(None, None, None)
                    await asyncio.sleep(5)
                    server = await self._serve()
                await asyncio.sleep(HOUR / 2 - _SETTLED)
                self._roam(hour)
                before = list(self._heard)
                await asyncio.sleep(_SETTLED)
                assert all(now > was for now, was in zip(self._heard, before, strict=True)), f"hour {hour}: no word"
                assert one.path is not None
                assert one.path.kind is PathKind.DIRECT, f"hour {hour}"
                if hour in (WARM, DAY):
                    counts.append(self._count(server, (one, other), (near, far)))
            for task in talking:
                task.cancel()
            results = await asyncio.gather(*talking, return_exceptions=True)
            assert all(isinstance(result, asyncio.CancelledError) for result in results), results
        await server.__aexit__(None, None, None)
        first, last = counts
        return first, last

    async def _serve(self) -> Server:
        with self._server_host:
            return await Server().__aenter__()

    def _roam(self, hour: int) -> None:
        who = hour % 2
        taken = self._at[1 - who]
        self._at[who] = next(place for place in range(hour, hour + 4) if place % 4 not in (taken, self._at[who])) % 4
        self._hosts[who].move(self._places[self._at[who]])

    def _count(
        self, server: Server, ends: tuple[Connection, Connection], endpoints: tuple[Endpoint, Endpoint]
    ) -> Count:
        for _ in range(3):
            gc.collect()
        around = [endpoint._surroundings for endpoint in endpoints]
        near, far = ends
        return Count(
            paths=(len(near.paths), len(far.paths)),
            receivers=tuple(len(each._receivers) for each in around),
            spawned=tuple(len(each._tasks) for each in around),
            allocations=len(server.relay.turn._allocations),
            links=tuple(len(each.relays._links) for each in around),
            peers=tuple(len(each.relays._peers) for each in around),
            tasks=len(asyncio.all_tasks()),
            timers=sum(not timer.cancelled() for timer in self._simulation.loop._scheduled),
            objects=len(gc.get_objects()),
            memory=_resident(),
        )


async def _talk(connection: Connection, heard: list[int], side: int, *, opens: bool) -> None:
    stream = await (connection.open_stream() if opens else connection.accept_stream())

    async def say() -> None:
        while True:
            await stream.write(b"word")
            await asyncio.sleep(_TICK)

    async def listen() -> None:
        while await stream.readexactly(4):
            heard[side] += 1

    await asyncio.gather(say(), listen())


def _resident() -> int:
    """Bytes of memory that this process has; 0 where nobody tells."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() if statm.exists() else 0


@pytest.mark.slow
def test_a_day_of_roaming_and_restarts_leaves_nothing_behind() -> None:
    with Simulation(7) as simulation:
        first, last = simulation.run(Day(simulation).live())
    assert replace(last, objects=first.objects, memory=first.memory) == first
    # What is kept of each network that either has been on is little.
    assert last.objects < 1.05 * first.objects
    assert last.memory < first.memory + (4 << 20)
