"""Worlds: who reaches whom, by which way, and what events change about it."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys

import pytest

from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.nat import Hairpinning, NatBehaviour
from quice.sim.packet import Fate, Passage, Protocol
from quice.sim.trace import Digest, Traffic
from quice.sim.world import World
from quice.stun.discovery import Behaviour
from quice.wire import Address
from tests.sim.clock import HeapClock
from tests.sim.sockets import Socket, address, fates

FULL_CONE = NatBehaviour(filtering=Behaviour.ENDPOINT_INDEPENDENT)


@pytest.fixture
def server(world: World) -> Socket:
    return Socket(world.host("server", ipv6=1), port=80)


def target(socket: Socket, world: World, host: str = "server") -> Address:
    return Address(address(world.hosts[host]), socket.port)


def test_a_packet_goes_through_both_sites_and_its_answer_comes_back(world: World, clock: HeapClock) -> None:
    one = world.site(nat=Nat.FULL_CONE, uplink=Conditions(delay=0.5)).host("one")
    two = world.site(nat=Nat.FULL_CONE, uplink=Conditions(delay=0.125), downlink=Conditions(delay=1.0)).host("two")
    here, there = Socket(one), Socket(two, port=5000)
    there.send(b"open", Address("192.0.2.200", 9))
    here.send(b"hello", Address(world.sites["site2"].external[0], 5000))
    clock.advance(1.4)
    assert there.received == []
    clock.advance(0.1)
    assert there.texts == [b"hello"]
    there.reply(b"answer")
    clock.advance(0.625)
    assert here.texts == [b"answer"]


def test_a_host_behind_a_nat_is_seen_with_the_external_address(world: World, clock: HeapClock, server: Socket) -> None:
    site = world.site(nat=Nat.PORT_RESTRICTED)
    alice = Socket(site.host("alice"))
    alice.send(b"", target(server, world))
    clock.drain()
    assert server.received[0].source == Address(site.external[0], alice.port)


def test_what_nobody_asked_for_is_filtered(world: World, clock: HeapClock, trace: list[Passage]) -> None:
    site = world.site("home", nat=Nat.PORT_RESTRICTED)
    Socket(site.host("alice"), port=5000)
    Socket(world.host("stranger")).send(b"unasked", Address(site.external[0], 5000))
    clock.drain()
    assert trace[-1].place == "home"
    assert fates(trace, b"unasked")[-1] is Fate.FILTERED


def test_hosts_of_one_site_reach_each_other_without_its_nat(world: World, clock: HeapClock) -> None:
    site = world.site(nat=Nat.SYMMETRIC)
    one, two = Socket(site.host("one")), Socket(site.host("two"))
    one.send(b"hello", target(two, world, "two"))
    clock.drain()
    assert two.received[0].source.host == address(world.hosts["one"])


def test_hosts_of_two_sites_do_not_reach_each_other_by_private_addresses(
    world: World, clock: HeapClock, trace: list[Passage]
) -> None:
    one, two = (Socket(world.site(nat=Nat.FULL_CONE).host(name)) for name in ("one", "two"))
    one.send(b"lost", target(two, world, "two"))
    clock.drain()
    assert (trace[-1].place, trace[-1].fate) == ("internet", Fate.NO_ROUTE)


def test_two_homes_may_have_the_same_private_addresses(world: World, clock: HeapClock, trace: list[Passage]) -> None:
    homes = [world.site(name, nat=Nat.FULL_CONE, lan="192.168.0.0/24") for name in ("one", "two")]
    one, two = (Socket(home.host(home.name), port=5000) for home in homes)
    assert address(world.hosts["one"]) == address(world.hosts["two"])
    one.send(b"to myself", target(two, world, "two"))
    one.send(b"to nobody", Address("192.168.0.99", 5000))
    clock.drain()
    assert one.texts == [b"to myself"]
    assert two.texts == []
    assert fates(trace, b"to nobody") == [Fate.SENT, Fate.NO_ROUTE]


def test_hosts_of_a_site_without_nat_have_public_addresses(world: World, clock: HeapClock, server: Socket) -> None:
    alice = Socket(world.site().host("alice"))
    alice.send(b"", target(server, world))
    clock.drain()
    assert server.received[0].source == target(alice, world, "alice")
    server.reply(b"answer")
    clock.drain()
    assert alice.texts == [b"answer"]


def test_ipv6_passes_a_nat_unchanged_and_unfiltered(world: World, clock: HeapClock) -> None:
    one, two = (world.site(nat=Nat.SYMMETRIC, ipv6=True).host(name) for name in ("one", "two"))
    here, there = Socket(one, "::"), Socket(two, "::")
    here.send(b"hello", Address(address(two, version=6), there.port))
    clock.drain()
    assert there.received[0].source == Address(address(one, version=6), here.port)


def test_a_site_of_one_family_has_no_addresses_of_the_other(world: World) -> None:
    only4, only6 = world.site(nat=Nat.SYMMETRIC).host("four"), world.site(ipv4=False, ipv6=True).host("six")
    assert {each.ip.version for each in only4.addresses() if each.interface != "lo"} == {4}
    assert {each.ip.version for each in only6.addresses() if each.interface != "lo"} == {6}


def carried(world: World, carrier_nat: NatBehaviour, home_nat: NatBehaviour = FULL_CONE) -> tuple[Host, Host]:
    """A host in each of two homes behind one carrier."""
    carrier = world.site("carrier", nat=carrier_nat, carrier=True)
    one, two = (world.site(f"home-{name}", nat=home_nat, behind=carrier).host(name) for name in ("one", "two"))
    return one, two


def test_a_home_behind_a_carrier_is_translated_twice(world: World, clock: HeapClock, server: Socket) -> None:
    one, _ = carried(world, FULL_CONE)
    assert world.sites["home-one"].external == ("100.64.1.11",)
    inside = Socket(one)
    inside.send(b"", target(server, world))
    clock.drain()
    assert server.received[0].source == Address(world.sites["carrier"].external[0], inside.port)
    server.reply(b"answer")
    clock.drain()
    assert inside.texts == [b"answer"]


@pytest.mark.parametrize("hairpinning", [Hairpinning.OFF, Hairpinning.EXTERNAL_SOURCE])
def test_homes_of_one_carrier_reach_each_other_from_outside_only_by_its_hairpin(
    world: World, clock: HeapClock, server: Socket, hairpinning: Hairpinning
) -> None:
    one, two = carried(world, dataclasses.replace(FULL_CONE, hairpinning=hairpinning))
    here, there = Socket(one, port=5000), Socket(two, port=5001)
    there.send(b"", target(server, world))
    clock.drain()
    here.send(b"hello", server.received[0].source)
    clock.drain()
    if hairpinning is Hairpinning.OFF:
        assert there.received == []
    else:
        assert [each.source for each in there.received] == [Address(world.sites["carrier"].external[0], 5000)]


def test_homes_of_one_carrier_reach_each_other_inside_it(world: World, clock: HeapClock) -> None:
    one, two = carried(world, NatBehaviour())
    here, there = Socket(one), Socket(two, port=5001)
    there.send(b"open", Address("192.0.2.200", 9))
    here.send(b"hello", Address(world.sites["home-two"].external[0], 5001))
    clock.drain()
    assert there.texts == [b"hello"]


def test_ipv6_and_public_addresses_are_reached_through_the_site_above(world: World, clock: HeapClock) -> None:
    provider = world.site("provider", ipv6=True)
    customer = world.site("customer", ipv6=True, behind=provider).host("customer")
    stranger = world.host("stranger", ipv6=1)
    for version, wildcard in ((4, "0.0.0.0"), (6, "::")):
        there = Socket(customer, wildcard)
        Socket(stranger, wildcard).send(b"hello", Address(address(customer, version=version), there.port))
        clock.drain()
        assert there.texts == [b"hello"]


def test_a_cut_uplink_keeps_packets_in_and_is_no_news_to_the_hosts(
    world: World, clock: HeapClock, server: Socket, trace: list[Passage]
) -> None:
    site = world.site(nat=Nat.PORT_RESTRICTED)
    one, two = Socket(site.host("one")), Socket(site.host("two"))
    site.link.cut()
    one.send(b"lost", target(server, world))
    one.send(b"near", target(two, world, "two"))
    clock.drain()
    assert fates(trace, b"lost")[-1] is Fate.CUT
    assert two.texts == [b"near"]
    site.link.mend()
    one.send(b"again", target(server, world))
    clock.drain()
    assert server.texts == [b"again"]


def test_events_happen_at_their_times(world: World, clock: HeapClock, server: Socket) -> None:
    site = world.site(nat=Nat.PORT_RESTRICTED, uplink=Conditions(delay=0.1))
    alice = Socket(site.host("alice"))
    world.at(1.0, site.link.cut)
    world.at(2.0, site.link.mend)
    for tenth in range(30):
        world.at(tenth / 10, alice.send, bytes([tenth]), target(server, world))
    clock.drain()
    assert [text[0] for text in server.texts] == [*range(9), *range(20, 30)]


def test_a_rebooted_nat_lets_answers_in_only_after_something_went_out(
    world: World, clock: HeapClock, server: Socket
) -> None:
    site = world.site(nat=Nat.PORT_RESTRICTED)
    alice = Socket(site.host("alice"))
    alice.send(b"", target(server, world))
    clock.drain()
    assert site.nat is not None
    site.nat.reboot()
    server.reply(b"lost")
    clock.drain()
    assert alice.received == []
    alice.send(b"", target(server, world))
    clock.drain()
    server.reply(b"found")
    clock.drain()
    assert alice.texts == [b"found"]


def test_a_rebound_site_is_seen_with_another_port(world: World, clock: HeapClock, server: Socket) -> None:
    site = world.site(nat=Nat.PORT_RESTRICTED)
    alice = Socket(site.host("alice"))
    for _ in range(2):
        alice.send(b"", target(server, world))
        clock.drain()
        site.rebind()
    first, second = server.received
    assert first.source.host == second.source.host == site.external[0]
    assert first.source.port == alice.port != second.source.port


def test_a_renumbered_site_is_found_at_its_new_address_and_not_at_the_old(
    world: World, clock: HeapClock, server: Socket, trace: list[Passage]
) -> None:
    site = world.site(nat=Nat.FULL_CONE)
    alice = Socket(site.host("alice"))
    alice.send(b"", target(server, world))
    clock.drain()
    old = server.received[0].source
    site.renumber()
    alice.send(b"", target(server, world))
    clock.drain()
    assert server.received[1].source == Address(site.external[0], alice.port) != old
    server.send(b"old", old)
    server.reply(b"new")
    clock.drain()
    assert alice.texts == [b"new"]
    assert fates(trace, b"old")[-1] is Fate.NO_ROUTE


def test_tcp_segments_travel_as_datagrams_do(world: World, clock: HeapClock) -> None:
    there = Socket(world.host("server"), port=80, protocol=Protocol.TCP)
    here = Socket(world.site(nat=Nat.PORT_RESTRICTED).host("alice"), protocol=Protocol.TCP)
    here.send(b"segment", target(there, world))
    clock.drain()
    there.reply(b"answer")
    clock.drain()
    assert here.texts == [b"answer"]


def test_names_of_hosts_and_sites_are_given_once(world: World) -> None:
    world.host("server")
    world.site("home", nat=Nat.FULL_CONE)
    with pytest.raises(ValueError, match="host 'server'"):
        world.sites["home"].host("server")
    with pytest.raises(ValueError, match="site 'home'"):
        world.site("home")


def test_public_addresses_are_not_behind_a_nat(world: World) -> None:
    carrier = world.site("carrier", nat=Nat.SYMMETRIC, carrier=True)
    with pytest.raises(ValueError, match="behind a NAT"):
        world.site("home", behind=carrier)


def test_a_world_has_room_for_a_thousand_sites(world: World, clock: HeapClock, server: Socket) -> None:
    for number in range(1000):
        Socket(world.site(nat=Nat.SYMMETRIC, ipv6=True).host(f"host{number}")).send(b"", target(server, world))
    clock.drain()
    assert len({packet.source.host for packet in server.received}) == 1000


WEATHER = Conditions(delay=0.02, jitter=0.01, loss=0.1, duplication=0.05, reordering=0.05)


def run(seed: int, *, with_a_bystander: bool = False) -> tuple[str, list[tuple[float, bytes]]]:
    """Two hosts that answer each other in bad weather: the digest, and what the second one got when."""
    clock = HeapClock()
    world = World(seed, clock)
    digest = Digest()
    server = world.host("server")
    if with_a_bystander:
        other = Socket(world.site("other", nat=Nat.SYMMETRIC, uplink=WEATHER).host("bystander"))
        for tenth in range(100):
            world.at(tenth / 10, other.send, b"noise", Address(address(server), 9))
    world.watch(digest)
    heard: list[tuple[float, bytes]] = []
    binding = server.bind(
        Protocol.UDP, Address(address(server), 80), lambda packet: heard.append((clock.time(), packet.data))
    )
    alice = Socket(world.site("home", nat=Nat.SYMMETRIC, uplink=WEATHER).host("alice"))
    for tenth in range(100):
        world.at(tenth / 10, alice.send, bytes([tenth]), binding.local)
    clock.drain()
    return digest.hexdigest(), heard


def test_a_seed_reproduces_a_run_exactly() -> None:
    assert run(1) == run(1)
    assert run(1)[0] != run(2)[0]


def test_what_is_added_does_not_change_the_dice_of_others() -> None:
    alone, crowded = run(1), run(1, with_a_bystander=True)
    assert alone[1] == crowded[1]
    assert alone[0] != crowded[0]


def test_a_trace_tells_where_a_packet_was_and_when(world: World, clock: HeapClock, trace: list[Passage]) -> None:
    server = Socket(world.host("server"))
    site = world.site("home", nat=Nat.PORT_RESTRICTED, uplink=Conditions(delay=0.025))
    Socket(site.host("alice")).send(b"hello", target(server, world))
    clock.drain()
    assert [(each.time, each.place, each.fate) for each in trace] == [
        (0.0, "alice", Fate.SENT),
        (0.0, "home", Fate.FORWARDED),
        (0.025, "internet", Fate.FORWARDED),
        (0.025, "server", Fate.DELIVERED),
    ]
    assert {(each.packet.sender, each.packet.number) for each in trace} == {("alice", 1)}


def test_traffic_is_counted_by_sender_and_receiver(world: World, clock: HeapClock, server: Socket) -> None:
    traffic = Traffic()
    world.watch(traffic)
    alice = Socket(world.site(nat=Nat.PORT_RESTRICTED).host("alice"))
    for _ in range(2):
        alice.send(bytes(100), target(server, world))
    clock.drain()
    server.reply(bytes(10))
    clock.drain()
    assert traffic.packets == {("alice", "server"): 2, ("server", "alice"): 1}
    assert traffic.bytes == {("alice", "server"): 256, ("server", "alice"): 38}


def test_a_run_is_the_same_in_another_process() -> None:
    program = "from tests.sim.test_world import run; print(run(1)[0])"
    environment = os.environ | {"PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    other = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert other.stdout.strip() == run(1)[0]


def test_a_passage_reads_as_a_sentence(world: World, clock: HeapClock, trace: list[Passage]) -> None:
    Socket(world.host("alice"), port=5000).send(bytes(100), Address("192.0.2.1", 9))
    clock.drain()
    assert [str(passage) for passage in trace] == [
        "0.000000 alice: sent UDP #1 of alice, 203.0.113.11:5000 > 192.0.2.1:9, 100 bytes",
        "0.000000 internet: no route UDP #1 of alice, 203.0.113.11:5000 > 192.0.2.1:9, 100 bytes",
    ]
