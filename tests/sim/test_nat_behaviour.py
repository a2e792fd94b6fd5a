"""Simulated NATs are what they claim to be: measured from inside, as the lab measures those of the kernel."""

from __future__ import annotations

import pytest

from quice.sim import nat64
from quice.sim.firewall import FirewallBehaviour
from quice.sim.kinds import CLAIMS, Nat
from quice.sim.link import Conditions
from quice.sim.nat import NatBehaviour, PortAllocation
from quice.sim.nat64 import synthesized
from quice.sim.world import World
from quice.stun.discovery import Behaviour, DiscoveryError, Verdict
from quice.wire import Address
from tests.sim.clock import HeapClock
from tests.sim.probe import Client, measure, serve

INDEPENDENT, BY_ADDRESS, BY_PORT = Behaviour


@pytest.mark.parametrize("kind", Nat)
def test_a_nat_behaves_as_its_name_says(world: World, clock: HeapClock, kind: Nat) -> None:
    server = serve(world.host("server", ipv4=2))
    alice = world.site(nat=kind, uplink=Conditions(delay=0.025)).host("alice")
    assert measure(alice, server, clock) == CLAIMS[kind]


@pytest.mark.parametrize("mapping", Behaviour)
@pytest.mark.parametrize("filtering", Behaviour)
@pytest.mark.parametrize("ports", PortAllocation)
def test_every_behaviour_is_measured_as_it_is_set(
    world: World, clock: HeapClock, mapping: Behaviour, filtering: Behaviour, ports: PortAllocation
) -> None:
    if ports is PortAllocation.OVERLOADED:
        # What has its port for every destination looks the same to each of them, however it maps.
        expected = Verdict(INDEPENDENT, filtering, preserves_port=True)
    else:
        expected = Verdict(mapping, filtering, preserves_port=ports is PortAllocation.PRESERVED)
    server = serve(world.host("server", ipv4=2))
    alice = world.site(nat=NatBehaviour(mapping, filtering, ports)).host("alice")
    assert measure(alice, server, clock) == expected


@pytest.mark.parametrize("home", [Nat.FULL_CONE, Nat.PORT_RESTRICTED, Nat.SYMMETRIC])
@pytest.mark.parametrize("carrier", [Nat.FULL_CONE, Nat.PORT_RESTRICTED, Nat.SYMMETRIC])
def test_two_nats_behave_as_the_stricter_of_each(world: World, clock: HeapClock, home: Nat, carrier: Nat) -> None:
    server = serve(world.host("server", ipv4=2))
    above = world.site("carrier", nat=carrier, carrier=True)
    alice = world.site("home", nat=home, behind=above).host("alice")
    strictness = list(Behaviour)
    both = CLAIMS[home], CLAIMS[carrier]
    assert measure(alice, server, clock) == Verdict(
        max((each.mapping for each in both), key=strictness.index),
        max((each.filtering for each in both), key=strictness.index),
        all(each.preserves_port for each in both),
    )


@pytest.mark.parametrize("filtering", Behaviour)
def test_a_firewall_filters_ipv6_and_maps_nothing(world: World, clock: HeapClock, filtering: Behaviour) -> None:
    server = serve(world.host("server", ipv6=2), version=6)
    alice = world.site(nat=Nat.SYMMETRIC, ipv6=True, firewall=FirewallBehaviour(filtering)).host("alice")
    assert measure(alice, server, clock) == Verdict(INDEPENDENT, filtering, preserves_port=True)


def test_ipv6_without_a_firewall_is_open(world: World, clock: HeapClock) -> None:
    server = serve(world.host("server", ipv6=2), version=6)
    alice = world.site(nat=Nat.SYMMETRIC, ipv6=True).host("alice")
    assert measure(alice, server, clock) == CLAIMS[Nat.PUBLIC]


def test_a_firewall_filters_ipv4_where_no_nat_does(world: World, clock: HeapClock) -> None:
    server = serve(world.host("server", ipv4=2))
    alice = world.site(firewall=FirewallBehaviour()).host("alice")
    bob = world.site(nat=Nat.FULL_CONE, firewall=FirewallBehaviour()).host("bob")
    assert measure(alice, server, clock) == Verdict(INDEPENDENT, BY_PORT, preserves_port=True)
    assert measure(bob, server, clock) == CLAIMS[Nat.FULL_CONE]


def test_a_host_of_ipv6_alone_is_seen_by_ipv4_at_the_address_of_its_nat64(world: World, clock: HeapClock) -> None:
    server = serve(world.host("server", ipv4=2))
    site = world.site(ipv4=False, ipv6=True, nat64=nat64.DEFAULT)
    asked = Address(synthesized(server.host), server.port)
    assert Client(site.host("alice"), asked, clock).mapped().host == site.external[0]


@pytest.mark.parametrize(("ports", "answers"), [((), False), ((53,), False), ((53, 3478), True)])
def test_a_network_that_blocks_udp_lets_only_its_ports_through(
    world: World, clock: HeapClock, ports: tuple[int, ...], answers: bool
) -> None:
    server = serve(world.host("server", ipv4=2))
    client = Client(world.site(nat=Nat.PORT_RESTRICTED, udp_ports=ports).host("alice"), server, clock)
    if answers:
        assert client.mapped().host == world.sites["site1"].external[0]
    else:
        with pytest.raises(DiscoveryError, match="does not answer"):
            client.mapped()


def test_the_verdict_is_the_same_in_bad_weather(world: World, clock: HeapClock) -> None:
    server = serve(world.host("server", ipv4=2))
    weather = Conditions(delay=0.05, jitter=0.02, loss=0.1, duplication=0.2, reordering=0.2)
    alice = world.site(nat=Nat.ADDRESS_RESTRICTED, uplink=weather).host("alice")
    assert measure(alice, server, clock) == CLAIMS[Nat.ADDRESS_RESTRICTED]
