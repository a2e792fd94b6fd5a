"""Where a relay would have been the way, a failed attempt tells what is wrong with the relay."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from quice import Endpoint, PeerId, RelayServer
from quice.errors import NoPathError
from quice.server import Server
from quice.server.relay import NO_RELAY, RelaySettings
from quice.sim.kinds import Nat
from quice.sim.simulation import Simulation

ALPN = "problems/1"


@contextlib.asynccontextmanager
async def apart(
    simulation: Simulation, settings: RelaySettings = NO_RELAY, relay: RelayServer | None = None
) -> AsyncIterator[tuple[Endpoint, PeerId]]:
    """An endpoint, and a peer that it reaches by a relay alone. settings: the server's; relay: another of our own."""
    world = simulation.world
    alice, bob = (world.site(name, nat=Nat.SYMMETRIC).host(f"at {name}") for name in ("home", "office"))
    async with contextlib.AsyncExitStack() as stack:
        with world.host("server"):
            server = await stack.enter_async_context(Server(relay=settings))
        with bob:
            far = await stack.enter_async_context(Endpoint.bind(server=server.url, alpns=[ALPN]))
        with alice:
            relays = [relay] if relay is not None else []
            near = await stack.enter_async_context(Endpoint.bind(server=server.url, relays=relays))
            await asyncio.sleep(1)
            yield near, far.peer


@pytest.mark.parametrize("policy", ["auto", "relay"])
async def test_a_relay_that_refuses_is_named_with_its_reason(simulation: Simulation, policy: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        with simulation.world.host("relay"):
            relay = await stack.enter_async_context(Server(relay=RelaySettings(secret="ours")))
        wrong = RelayServer.parse(relay.turn, "1:me", "theirs")
        near, peer = await stack.enter_async_context(apart(simulation, relay=wrong))
        with pytest.raises(NoPathError) as raised:
            await near.connect(peer, alpn=ALPN, policy=policy)  # type: ignore[arg-type]
    url = relay.turn[0].removesuffix(":3478?transport=udp")
    assert f"; {url}: the relay refuses with 401" in str(raised.value)
    said = {"auto": "Without a relay, one of the two networks", "relay": "relays alone"}
    assert said[policy] in str(raised.value)
    if policy == "relay":
        assert raised.value.reason.startswith("this side has no candidate; ")


async def test_a_relay_that_does_not_answer_is_said_not_to(simulation: Simulation) -> None:
    silent = simulation.world.host("relay").addresses()[-1].host
    async with apart(simulation, relay=RelayServer.parse(f"turn:{silent}", "me", "secret")) as (near, peer):
        await asyncio.sleep(59)
        with pytest.raises(NoPathError, match=r"; turn:[0-9.]+: (the relay|it) does not answer"):
            await near.connect(peer, alpn=ALPN)


@pytest.mark.parametrize(("policy", "said"), [("direct", "to use no relay"), ("lan", "within its own network")])
async def test_where_the_policy_forbids_the_only_way_it_is_named(
    simulation: Simulation, policy: str, said: str
) -> None:
    async with apart(simulation, RelaySettings()) as (near, peer):
        with pytest.raises(NoPathError, match=said) as raised:
            await near.connect(peer, alpn=ALPN, policy=policy)  # type: ignore[arg-type]
    assert "name other relays" not in str(raised.value)
