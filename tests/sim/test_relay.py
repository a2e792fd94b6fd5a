"""The TURN service in the simulated internet: the same server, on a data path of the simulator."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from quice.endpoint import Endpoint
from quice.relaying.server import RelayServer
from quice.server import Server
from quice.server.relay import RelaySettings
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.packet import Protocol
from quice.sim.simulation import Simulation
from quice.turn.events import Allocated, Bound, PermissionRefused
from quice.wire import Address
from tests.server.relayed import SECRET, credentials, relayed_peer
from tests.sim.session import echo


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


async def test_a_permission_ends_in_time_and_the_data_path_knows(simulation: Simulation, host: Host) -> None:
    alice, bob = (simulation.world.host(name) for name in ("alice", "bob"))
    heard: list[bytes] = []
    async with contextlib.AsyncExitStack() as stack:
        with host:
            server = await stack.enter_async_context(Server(relay=RelaySettings(secret=SECRET)))
        with alice:
            client = await stack.enter_async_context(relayed_peer(server, local=("0.0.0.0", 0)))
        plain = bob.bind(Protocol.UDP, Address("0.0.0.0", 5000), lambda packet: heard.append(packet.data))
        at = Address(next(each.host for each in bob.addresses() if not each.ip.is_loopback), 5000)
        await client.event(Allocated)
        client.permit(at)
        await asyncio.sleep(1)
        client.send(b"there", at)
        plain.send(b"back", client.relayed[0])
        await asyncio.sleep(1)
        assert heard == [b"there"]
        assert await client.received() == (b"back", at)
        client.client.forget([at])
        await asyncio.sleep(300)
        plain.send(b"too late", client.relayed[0])
        await asyncio.sleep(1)
        assert server.relay.counts.drops == {"no permission": 1}


async def test_nobody_in_the_relays_own_network_is_reached(simulation: Simulation) -> None:
    site = simulation.world.site("office", nat=Nat.PORT_RESTRICTED)
    host, neighbour = site.host("relay"), site.host("neighbour")
    hidden = Address(next(each.host for each in neighbour.addresses() if not each.ip.is_loopback), 1)
    async with contextlib.AsyncExitStack() as stack:
        with host:
            server = await stack.enter_async_context(Server(relay=RelaySettings(secret=SECRET)))
            client = await stack.enter_async_context(relayed_peer(server, local=("0.0.0.0", 0)))
        await client.event(Allocated)
        client.permit(hidden)
        refused = await client.event(PermissionRefused)
        assert refused.code == 403
        client.permit(Address(client.relayed[0].host, 1))
        await asyncio.sleep(1)
        client.send(b"to the server itself", server.stun)
        await asyncio.sleep(1)
        assert server.relay.counts.drops == {"forbidden": 1}


async def test_an_allocation_lives_while_it_is_kept_up_and_is_gone_soon_after(
    simulation: Simulation, host: Host
) -> None:
    alice = simulation.world.site("home", nat=Nat.PORT_RESTRICTED).host("alice")
    async with contextlib.AsyncExitStack() as stack:
        with host:
            server = await stack.enter_async_context(Server(relay=RelaySettings(secret=SECRET)))
        with alice:
            client = await stack.enter_async_context(relayed_peer(server, local=("0.0.0.0", 0)))
        await client.event(Allocated)
        relayed = client.relayed
        await asyncio.sleep(2400)
        assert client.relayed == relayed
        assert len(server.relay.turn) == 1
        client.close(release=False)
        await asyncio.sleep(601)
        assert len(server.relay.turn) == 0
        assert server.relay.turn.timeout() is None


async def test_an_endpoint_has_its_relayed_address_without_being_challenged(simulation: Simulation, host: Host) -> None:
    alice = simulation.world.site("home", nat=Nat.PORT_RESTRICTED).host("alice")
    async with contextlib.AsyncExitStack() as stack:
        with host:
            server = await stack.enter_async_context(Server())
        with alice:
            await stack.enter_async_context(Endpoint.bind(server=server.url))
        await asyncio.sleep(2)
        assert len(server.relay.turn) == 1
        assert server.relay.turn.refused == {}


async def test_an_endpoint_that_comes_to_a_relay_while_it_asks_in_vain_has_an_address_there_soon(
    simulation: Simulation, host: Host
) -> None:
    """Its requests are further and further apart by then, and are sent from where it was."""
    world = simulation.world
    home, away = (world.site(name, nat=Nat.PORT_RESTRICTED) for name in ("home", "away"))
    alice = home.host("alice")
    async with contextlib.AsyncExitStack() as stack:
        with host:
            server = await stack.enter_async_context(Server(relay=RelaySettings(secret=SECRET)))
        home.link.change(Conditions(loss=1.0))
        with alice:
            account = credentials()
            relay = RelayServer.parse(server.turn[0], account.username, account.password)
            await stack.enter_async_context(Endpoint.bind(relays=[relay]))
        await asyncio.sleep(4.0)
        assert not len(server.relay.turn)
        alice.move(away)
        await asyncio.sleep(0.5)
        assert len(server.relay.turn) == 1


async def test_data_goes_on_through_an_allocation_that_is_another_users_until_there_is_another(
    simulation: Simulation, host: Host
) -> None:
    """As when a NAT gives a port again for which the relay has an older one."""
    sites = [simulation.world.site(nat=Nat.SYMMETRIC, uplink=Conditions(delay=0.025)) for _ in range(2)]
    alice, bob = sites[0].host("alice"), sites[1].host("bob")
    async with contextlib.AsyncExitStack() as stack:
        with host:
            server = await stack.enter_async_context(Server(relay=RelaySettings(secret=SECRET)))
        with bob:
            far = await stack.enter_async_context(Endpoint.bind(server=server.url, alpns=["test/1"]))
            bob.start(echo(far))
        with alice:
            near = await stack.enter_async_context(Endpoint.bind(server=server.url, policy="relay"))
            connection = await stack.enter_async_context(
                await near.connect(far.peer, alpn="test/1", policy="relay"),
            )
            stream = await connection.open_stream()
            (relay,) = near._surroundings.relays._relays.values()
            link = relay.link
            assert link is not None
            link._client._requests.credentials = credentials("somebody else")
            relay.check()
            slowest = 0.0
            for _ in range(200):
                asked = simulation.loop.time()
                await stream.write(b"?")
                await stream.readexactly(1)
                slowest = max(slowest, simulation.loop.time() - asked)
                await asyncio.sleep(0.05)
            assert slowest < 0.3
            assert relay.link not in (None, link)
            assert relay.routes == [relay.link]
            stream.finish()
            assert not await stream.read()
