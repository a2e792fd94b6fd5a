"""A rendezvous server names relays, and may send its peers to none that is closer to them than it is itself."""

from __future__ import annotations

import asyncio
import ipaddress

import pytest

from quice import Endpoint
from quice.ice.scope import may_refer
from quice.server import Server
from quice.server.relay import RelaySettings
from quice.sim.kinds import Nat
from quice.sim.packet import Fate, Passage
from quice.sim.world import World

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
