"""Rendezvous, STUN and TURN servers, each of which may not be there: the others do their part without it."""

from __future__ import annotations

import asyncio

import pytest

from quice import Address, Connection, Endpoint, PathKind, Policy, RelayServer
from quice.errors import ServerUnreachableError
from quice.machine import this_machine
from quice.server import Server
from quice.server.app import DEFAULT_PORT, DEFAULT_STUN_PORT
from quice.server.relay import RelaySettings
from quice.signal import signalling_pair
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.simulation import Simulation
from quice.sim.site import Site
from quice.turn.credentials import time_limited

ALPN = "test/1"
SITE = Conditions(delay=0.025)
SECRET = "a secret of tests"


def homes(simulation: Simulation, nat: Nat = Nat.PORT_RESTRICTED) -> list[Site]:
    """Of alice and of bob."""
    return [simulation.world.site(nat=nat, uplink=SITE) for _ in range(2)]


def nobody(simulation: Simulation) -> str:
    """The address of a host on which nothing serves."""
    return simulation.world.host("nobody").addresses()[0].host


async def serve(host: Host) -> Server:
    with host:
        return await Server(relay=RelaySettings(secret=SECRET)).__aenter__()


async def connect(near_host: Host, near: Endpoint, far_host: Host, far: Endpoint, policy: Policy) -> Connection:
    """Over a channel of the application's own."""
    ours, theirs = signalling_pair()
    far_host.start(far.respond(near.peer, theirs))
    with near_host:
        return await near.connect(far.peer, alpn=ALPN, signalling=ours, policy=policy)


async def test_without_a_rendezvous_server_stun_still_leads_through_nats(simulation: Simulation) -> None:
    url = f"ws://{nobody(simulation)}:{DEFAULT_PORT}"
    stun = [(await simulation.server("stun", relay=False)).stun]
    alice, bob = (home.host(name) for home, name in zip(homes(simulation), ("alice", "bob"), strict=True))
    with alice:
        near = await Endpoint.bind(server=url, stun_servers=stun)
    with bob:
        far = await Endpoint.bind(server=url, stun_servers=stun, alpns=[ALPN])
    async with await connect(alice, near, bob, far, Policy.DIRECT) as connection:
        assert connection.peer == far.peer
    with alice, pytest.raises(ServerUnreachableError, match=url):
        await near.connect(far.peer, alpn=ALPN)


async def test_without_a_rendezvous_server_or_stun_a_relay_still_leads_anywhere(simulation: Simulation) -> None:
    host = nobody(simulation)
    url, stun = f"ws://{host}:{DEFAULT_PORT}", [Address(host, DEFAULT_STUN_PORT)]
    relay = await serve(simulation.world.host("relay"))
    with simulation.world.hosts["relay"]:
        account = time_limited(SECRET, this_machine().unix_time() + 600, "tests")
    relays = [RelayServer.parse(relay.turn, account.username, account.password)]
    sites = homes(simulation, Nat.SYMMETRIC)
    alice, bob = (home.host(name) for home, name in zip(sites, ("alice", "bob"), strict=True))
    with alice:
        near = await Endpoint.bind(server=url, stun_servers=stun, relays=relays)
    with bob:
        far = await Endpoint.bind(server=url, stun_servers=stun, relays=relays, alpns=[ALPN])
    async with await connect(alice, near, bob, far, Policy.AUTO) as connection:
        assert connection.paths[0].kind is PathKind.RELAY


async def test_without_stun_or_a_relay_the_rendezvous_server_still_brings_peers_together(
    simulation: Simulation,
) -> None:
    server = await serve(simulation.world.host("server"))
    # As if the ports of STUN and TURN were blocked; peers are still told of them.
    server.relay.close()
    silent = nobody(simulation)
    stun = [Address(silent, DEFAULT_STUN_PORT)]
    relays = [RelayServer.parse(f"turn:{silent}", "name", "password")]
    alice, bob = homes(simulation)[0].host("alice"), simulation.world.host("bob")
    with bob:
        far = await Endpoint.bind(server=server.url, stun_servers=stun, relays=relays, alpns=[ALPN])
    with alice:
        near = await Endpoint.bind(server=server.url, stun_servers=stun, relays=relays)
        async with await near.connect(far.peer, alpn=ALPN) as connection:
            # Nobody has waited for the servers that are not there.
            assert connection.connect_seconds < 0.5


async def test_an_endpoint_that_begins_without_its_server_has_it_and_its_stun_service_once_it_is_there(
    simulation: Simulation,
) -> None:
    host = simulation.world.host("late")
    url = f"ws://late:{DEFAULT_PORT}"
    other = [(await simulation.server("other", relay=False)).stun]
    sites = homes(simulation)
    alice, bob = (home.host(name) for home, name in zip(sites, ("alice", "bob"), strict=True))
    with bob:
        far = await Endpoint.bind(server=url, stun_servers=other, alpns=[ALPN])
    # From now on only the late one tells bob what his NAT has made of him.
    simulation.world.hosts["other"].unplug("eth0")
    sites[1].renumber()
    server = await serve(host)
    while not len(server.rendezvous):
        await asyncio.sleep(1)
    with alice:
        near = await Endpoint.bind(server=url)
        await asyncio.sleep(1)
        async with await near.connect(far.peer, alpn=ALPN, policy=Policy.DIRECT) as connection:
            assert connection.peer == far.peer


async def test_of_several_servers_the_next_one_gives_its_stun_service_too(simulation: Simulation) -> None:
    first, second = [await serve(simulation.world.host(name)) for name in ("first", "second")]
    sites = homes(simulation)
    alice, bob = (home.host(name) for home, name in zip(sites, ("alice", "bob"), strict=True))
    with bob:
        far = await Endpoint.bind(server=[first.url, second.url], alpns=[ALPN])
    with alice:
        near = await Endpoint.bind(server=[first.url, second.url])
    assert len(first.rendezvous) == 2
    simulation.world.hosts["first"].unplug("eth0")
    # What its STUN service has said is true no more.
    for home in sites:
        home.renumber()
    while len(second.rendezvous) < 2:
        await asyncio.sleep(1)
    await asyncio.sleep(1)
    assert near.server == far.server == second.url
    with alice:
        async with await near.connect(far.peer, alpn=ALPN, policy=Policy.DIRECT) as connection:
            assert connection.peer == far.peer


async def test_an_endpoint_that_has_nothing_else_says_that_its_server_is_not_there(simulation: Simulation) -> None:
    url = f"ws://{nobody(simulation)}:{DEFAULT_PORT}"
    with simulation.world.host("alice"), pytest.raises(ServerUnreachableError, match=url):
        await Endpoint.bind(server=url)


async def test_a_server_that_says_nothing_holds_up_for_three_seconds_who_can_do_without(
    simulation: Simulation,
) -> None:
    stun = [(await simulation.server("stun", relay=False)).stun]
    simulation.world.host("silent").sleep()
    alice = simulation.world.host("alice")
    with alice:
        started = simulation.loop.time()
        await Endpoint.bind(server=f"ws://silent:{DEFAULT_PORT}", stun_servers=stun)
        assert simulation.loop.time() - started == pytest.approx(3, abs=0.1)
