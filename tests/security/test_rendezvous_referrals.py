"""A rendezvous server names relays, and may send its peers to none that is closer to them than it is itself."""

from __future__ import annotations

import asyncio
import ipaddress
import itertools

import pytest

from quice import Endpoint
from quice.ice.scope import may_refer
from quice.relaying.relay import MAX_WAYS
from quice.server import Server
from quice.server.relay import RelaySettings
from quice.signal import protocol
from quice.sim.kinds import Nat
from quice.sim.packet import Fate, Passage
from quice.sim.world import World
from quice.wire import Address
from tests.security.malicious import malicious
from tests.security.victim import Victim

RELAYS_BURST, RELAYS_RATE = 50_000, 4_500
CLOSE = (
    "127.0.0.1",
    "192.168.7.1",
    "10.0.0.1",
    "169.254.169.254",
    "100.100.100.200",
    "224.0.0.251",
    "255.255.255.255",
)


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_a_server_on_the_internet_sends_nobody_into_their_own_network(world: World, transport: str) -> None:
    urls = tuple(f"turn:{host}:6379?transport={transport}" for host in CLOSE)
    server, alice = world.host("server"), world.site(nat=Nat.FULL_CONE, lan="192.168.7.0/24").host("alice")
    destinations: set[str] = set()

    def watch(passage: Passage) -> None:
        if passage.place == "alice" and passage.fate is Fate.SENT:
            destinations.add(passage.packet.destination.host)

    world.watch(watch)
    with server:
        service = await Server(relay=RelaySettings(urls=urls, secret="s")).__aenter__()
    with alice:
        endpoint = await Endpoint.bind(server=service.url)
        await asyncio.sleep(60)
        assert endpoint._surroundings.relays.are_there
    assert destinations == {service.stun.host}


async def test_a_server_that_names_ever_new_relays_has_a_fixed_amount_sent_to_a_victim(world: World) -> None:
    """At one address under ever new ports, as fast as it can say so."""
    victim = Victim(world)
    async with malicious(world) as (attacker, url):
        with world.host("alice"):
            endpoint = await Endpoint.bind(server=url)
        (connection,) = attacker.peers.values()
        ports = itertools.cycle(range(1000, 60_000))

        def relay() -> protocol.RelayServer:
            urls = tuple(f"turn:{victim.address}:{next(ports)}?transport=udp" for _ in range(protocol.MAX_RELAYS))
            return protocol.RelayServer(urls=urls, username="u", password="p", lifetime=60.0)

        for _ in range(1200):
            relays = tuple(relay() for _ in range(protocol.MAX_RELAYS))
            await attacker._send(connection, protocol.Relays(relays=relays))
            await asyncio.sleep(0.1)
        await endpoint.close()
    assert 10_000 < victim.bytes < RELAYS_BURST + 120 * RELAYS_RATE


async def test_a_name_that_stands_for_many_addresses_is_tried_at_a_few(world: World) -> None:
    """Whoever runs a server may own a zone of the DNS, in which a name has as many addresses as a message holds."""
    world.host("many", ipv4=60)
    tried: set[Address] = set()

    def watch(passage: Passage) -> None:
        if passage.place == "alice" and passage.fate is Fate.SENT and 1000 <= passage.packet.destination.port < 1100:
            tried.add(passage.packet.destination)

    async with malicious(world) as (attacker, url):
        with world.host("alice"):
            endpoint = await Endpoint.bind(server=url)
        world.watch(watch)
        (connection,) = attacker.peers.values()
        relays = tuple(
            protocol.RelayServer(
                urls=tuple(f"turn:many:{1000 + 10 * number + each}?transport=udp" for each in range(8)),
                username="u",
                password="p",
                lifetime=60.0,
            )
            for number in range(8)
        )
        await attacker._send(connection, protocol.Relays(relays=relays))
        await asyncio.sleep(20)
        await endpoint.close()
    assert 8 * 4 <= len(tried) <= 8 * MAX_WAYS


@pytest.mark.parametrize(
    ("server", "relay", "believed"),
    [
        ("203.0.113.1", "203.0.113.1", True),
        ("203.0.113.1", "198.51.100.1", True),
        ("203.0.113.1", "2001:db8::1", True),
        ("203.0.113.1", "10.0.0.1", False),
        ("203.0.113.1", "fd12::1", False),
        ("203.0.113.1", "169.254.1.1", False),
        ("203.0.113.1", "127.0.0.1", False),
        ("203.0.113.1", "::1", False),
        ("203.0.113.1", "64:ff9b::a00:1", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "192.168.1.1", True),
        ("10.0.0.1", "203.0.113.1", True),
        ("10.0.0.1", "127.0.0.1", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1", "10.0.0.1", True),
        ("127.0.0.1", "169.254.169.254", False),
        ("127.0.0.1", "224.0.0.1", False),
    ],
)
def test_a_server_names_what_is_no_closer_than_itself(server: str, relay: str, believed: bool) -> None:
    assert may_refer(ipaddress.ip_address(server), ipaddress.ip_address(relay)) is believed
