"""A connection that was made straight to an address finds a better way through its own control channel."""

from __future__ import annotations

import asyncio
import contextlib

from quice import Endpoint
from quice.server import Server
from quice.wire import Address
from tests.sim.sockets import address
from tests.sim.test_challenges import ALPN, Detour, settled


def test_a_connection_through_a_vpn_becomes_direct_with_no_rendezvous_server() -> None:
    place = Detour()

    async def main() -> float:
        async with contextlib.AsyncExitStack() as stack:
            with place.server:
                stun = (await stack.enter_async_context(Server())).stun
            with place.bob:
                far = await stack.enter_async_context(Endpoint.bind(alpns=[ALPN], stun_servers=[stun]))
            with place.alice:
                near = await stack.enter_async_context(Endpoint.bind(stun_servers=[stun]))
                await asyncio.sleep(2)
                to = Address(address(place.bob, index=1), far.port)
                connection = await near.connect(far.peer, alpn=ALPN, address=to)
            return await settled(connection, place.external("bob"), within=10)

    with place.simulation:
        assert place.simulation.run(main()) < 1.5
