"""NAT64: IPv4 for hosts of IPv6 alone."""

from __future__ import annotations

import pytest

from quice.sim import nat64
from quice.sim.kinds import Nat
from quice.sim.nat64 import embedded, synthesized
from quice.sim.packet import Passage, Protocol
from quice.sim.site import Site
from quice.sim.world import World
from quice.wire import Address
from tests.sim.clock import HeapClock
from tests.sim.sockets import Socket, address


@pytest.fixture
def site(world: World) -> Site:
    return world.site("mobile", ipv4=False, ipv6=True, nat64=nat64.DEFAULT)


def test_an_ipv4_address_is_the_end_of_its_synthesized_one() -> None:
    """RFC 6052 §2.4."""
    assert synthesized("192.0.2.33") == "64:ff9b::c000:221"
    assert embedded("64:ff9b::c000:221") == "192.0.2.33"
    assert embedded("64:ff9b:1::c000:221") is None


@pytest.mark.parametrize("protocol", Protocol)
def test_a_host_of_ipv6_alone_speaks_with_one_of_ipv4_alone(
    world: World, clock: HeapClock, site: Site, protocol: Protocol
) -> None:
    server = Socket(world.host("server"), port=80, protocol=protocol)
    alice = Socket(site.host("alice"), "::", protocol=protocol)
    asked = Address(synthesized(address(world.hosts["server"])), 80)
    alice.send(b"hello", asked)
    clock.drain()
    assert server.texts == [b"hello"]
    assert server.received[0].source.host == site.external[0]
    server.reply(b"answer")
    clock.drain()
    assert alice.texts == [b"answer"]
    assert alice.received[0].source == asked


def test_a_packet_shrinks_by_the_difference_of_the_headers(
    world: World, clock: HeapClock, site: Site, trace: list[Passage]
) -> None:
    server = Socket(world.host("server"), port=80)
    asked = Address(synthesized(address(world.hosts["server"])), 80)
    Socket(site.host("alice"), "::").send(bytes(100), asked)
    clock.drain()
    assert trace[0].packet.size == 148
    assert server.received[0].size == 128


def test_its_filter_lets_in_whom_its_host_has_spoken_to(world: World, clock: HeapClock, site: Site) -> None:
    server, stranger = Socket(world.host("server"), port=80), Socket(world.host("stranger"))
    alice = Socket(site.host("alice"), "::")
    alice.send(b"", Address(synthesized(address(world.hosts["server"])), 80))
    clock.drain()
    stranger.send(b"unasked", server.received[0].source)
    clock.drain()
    assert alice.received == []


def test_ipv6_passes_it_unchanged(world: World, clock: HeapClock, site: Site) -> None:
    alice, server = site.host("alice"), world.host("server", ipv6=1)
    there = Socket(server, "::")
    Socket(alice, "::").send(b"hello", Address(address(server, version=6), there.port))
    clock.drain()
    assert there.received[0].source.host == address(alice, version=6)


def test_two_hosts_behind_it_reach_each_other_by_their_ipv4_addresses(
    world: World, clock: HeapClock, site: Site
) -> None:
    """RFC 6146 §3.8: the hairpin. Here the provider's router turns the packet round."""
    server = Socket(world.host("server"), port=80)
    asked = Address(synthesized(address(world.hosts["server"])), 80)
    one, two = Socket(site.host("one"), "::"), Socket(site.host("two"), "::")
    one.send(b"", asked)
    two.send(b"", asked)
    clock.drain()
    seen_one, seen_two = (packet.source for packet in server.received)
    one.send(b"open", Address(synthesized(seen_two.host), seen_two.port))
    two.send(b"hello", Address(synthesized(seen_one.host), seen_one.port))
    clock.drain()
    assert b"hello" in one.texts


def test_a_site_may_have_a_nat_for_ipv4_beside_it(world: World, clock: HeapClock) -> None:
    server = Socket(world.host("server"), port=80)
    site = world.site("home", nat=Nat.PORT_RESTRICTED, ipv6=True, nat64=nat64.DEFAULT)
    alice = site.host("alice")
    four, six = Socket(alice), Socket(alice, "::")
    four.send(b"four", Address(address(world.hosts["server"]), 80))
    six.send(b"six", Address(synthesized(address(world.hosts["server"])), 80))
    clock.drain()
    for packet in server.received:
        server.binding.send(packet.data, packet.source)
    clock.drain()
    assert (four.texts, six.texts) == ([b"four"], [b"six"])
    assert len({packet.source.host for packet in server.received}) == 2


def test_a_renumbered_site_has_another_address_for_it(world: World, clock: HeapClock, site: Site) -> None:
    server = Socket(world.host("server"), port=80)
    alice = Socket(site.host("alice"), "::")
    asked = Address(synthesized(address(world.hosts["server"])), 80)
    alice.send(b"", asked)
    clock.drain()
    site.renumber()
    server.reply(b"lost")
    alice.send(b"", asked)
    clock.drain()
    server.reply(b"found")
    clock.drain()
    assert alice.texts == [b"found"]
