"""A connection keeps to the pairs that work: a better one is taken, a lost one replaced."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from quice import Connection, Endpoint
from quice.server import Server
from quice.server.relay import NO_RELAY
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.simulation import Simulation

NEAR = Conditions(delay=0.02)
GONE = Conditions(loss=1.0)
ALPN = "paths/1"


@contextlib.asynccontextmanager
async def connected(server: Host, one: Host, two: Host) -> AsyncIterator[tuple[Connection, Connection]]:
    """A connection from one to two, as each side sees it."""
    async with contextlib.AsyncExitStack() as stack:
        with server:
            service = await stack.enter_async_context(Server(relay=NO_RELAY))
        with two:
            far = await stack.enter_async_context(Endpoint.bind(server=service.url, alpns=[ALPN]))
        with one:
            near = await stack.enter_async_context(Endpoint.bind(server=service.url))
            await asyncio.sleep(1)
            connection = await near.connect(far.peer, alpn=ALPN)
        with two:
            yield connection, await far.accept()


async def echo(connection: Connection) -> None:
    async for stream in connection:
        while data := await stream.read():
            await stream.write(data)


async def longest_pause(connection: Connection, seconds: float) -> float:
    """Send a number ten times a second and read its echo; the longest time that one took to come back."""
    loop = asyncio.get_running_loop()
    stream = await connection.open_stream()
    longest, end = 0.0, loop.time() + seconds
    number = 0
    while loop.time() < end:
        sent = loop.time()
        await stream.write(number.to_bytes(4, "big"))
        assert int.from_bytes(await stream.readexactly(4), "big") == number
        longest = max(longest, loop.time() - sent)
        number += 1
        await asyncio.sleep(0.1)
    return longest


@pytest.fixture
def phone_and_server() -> tuple[Simulation, Host, Host, Host]:
    """A phone with Wi-Fi and LTE, each behind a NAT, someone at home, and a server."""
    simulation = Simulation(seed=3)
    world = simulation.world
    server = world.host("server")
    wifi = world.site("wifi", nat=Nat.PORT_RESTRICTED, uplink=NEAR)
    lte = world.site("lte", nat=Nat.PORT_RESTRICTED, uplink=Conditions(delay=0.05))
    phone = wifi.host("phone", interface="wlan0")
    lte.join(phone, "wwan0")
    home = world.site("home", nat=Nat.PORT_RESTRICTED, uplink=NEAR).host("home")
    return simulation, server, phone, home


def test_a_connection_goes_on_over_another_pair_when_its_own_falls_silent(
    phone_and_server: tuple[Simulation, Host, Host, Host],
) -> None:
    simulation, server, phone, home = phone_and_server

    async def main() -> tuple[float, float]:
        async with connected(server, phone, home) as (near, far):
            answering = asyncio.create_task(echo(far))
            assert [path.remote.host for path in near.paths] == [simulation.world.sites["home"].nat.external[0]]  # type: ignore[union-attr]
            before = near.paths[0].local
            calm = await longest_pause(near, 3)
            simulation.world.sites["wifi"].link.change(GONE)
            pause = await longest_pause(near, 20)
            after = near.paths[0].local
            assert before is not None
            assert after is not None
            assert (before.host, after.host) == tuple(
                address.host for address in phone.addresses() if address.interface in ("wlan0", "wwan0")
            )
            assert len(near.paths) == 1
            assert not near.is_closed
            answering.cancel()
            return calm, pause

    with simulation:
        calm, pause = simulation.run(main())
    assert calm < 0.2
    assert pause < 4.0


def test_both_sides_follow_when_the_agents_select_another_pair(
    phone_and_server: tuple[Simulation, Host, Host, Host],
) -> None:
    simulation, server, phone, home = phone_and_server

    async def main() -> float:
        async with connected(server, phone, home) as (near, far):
            answering = asyncio.create_task(echo(far))
            await asyncio.sleep(5)
            assert near._session is not None
            other = next(
                pair
                for pair in near._session.pairs
                if pair.is_valid and near.paths[0].local is not None and pair.base.host != near.paths[0].local.host
            )
            near._session.use(other)
            pause = await longest_pause(near, 5)
            for connection in (near, far):
                (path,) = connection.paths
                assert path.status == "available"
            assert near.paths[0].local is not None
            assert near.paths[0].local.host == other.base.host
            answering.cancel()
            return pause

    with simulation:
        assert simulation.run(main()) < 0.3
