"""Hosts: what can be bound, what is delivered, and from where packets are sent."""

from __future__ import annotations

import errno

import pytest

from quice.network import LocalAddress
from quice.sim.host import Host
from quice.sim.kinds import Nat
from quice.sim.link import Conditions
from quice.sim.packet import Fate, Passage, Protocol
from quice.sim.world import World
from quice.wire import Address
from tests.sim.clock import HeapClock
from tests.sim.sockets import Socket, address, fates, refused


@pytest.fixture
def host(world: World) -> Host:
    return world.site("home", nat=Nat.PORT_RESTRICTED, ipv6=True).host("alice")


def test_a_host_tells_the_addresses_of_loopback_and_of_its_interfaces(host: Host) -> None:
    assert host.addresses() == [
        LocalAddress("127.0.0.1", "lo"),
        LocalAddress("::1", "lo"),
        LocalAddress("192.168.1.11", "eth0"),
        LocalAddress("2001:db8:1::b", "eth0"),
        LocalAddress("fe80::1:b%eth0", "eth0"),
    ]


def test_the_addresses_of_an_interface_without_link_are_not_told(host: Host) -> None:
    host.interfaces["eth0"].link.cut()
    assert [each.host for each in host.addresses()] == ["127.0.0.1", "::1"]
    host.interfaces["eth0"].link.mend()
    assert len(host.addresses()) == 5


def test_a_port_is_chosen_where_none_is_asked_for_and_by_the_seed(clock: HeapClock) -> None:
    def port(seed: int) -> int:
        return Socket(World(seed, clock).host("server")).port

    assert port(1) == port(1) != port(2)
    assert 32768 <= port(1) < 61000


def test_chosen_ports_are_free_ones(host: Host) -> None:
    assert len({Socket(host).port for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("192.168.1.11", "192.168.1.11"),
        ("0.0.0.0", "192.168.1.11"),
        ("192.168.1.11", "0.0.0.0"),
        ("::", "fe80::1:b%eth0"),
        ("::1", "::"),
    ],
)
def test_a_port_that_is_taken_is_refused(host: Host, first: str, second: str) -> None:
    Socket(host, first, 5000)
    with refused(errno.EADDRINUSE):
        Socket(host, second, 5000)


@pytest.mark.parametrize(("first", "second"), [("192.168.1.11", "127.0.0.1"), ("0.0.0.0", "::"), ("::", "0.0.0.0")])
def test_a_port_can_be_had_on_another_address_or_of_another_family(host: Host, first: str, second: str) -> None:
    Socket(host, first, 5000)
    assert Socket(host, second, 5000).port == 5000


def test_the_same_port_of_another_protocol_is_another_port(host: Host) -> None:
    Socket(host, port=5000)
    assert Socket(host, port=5000, protocol=Protocol.TCP).port == 5000


def test_an_address_of_somebody_else_cannot_be_bound(host: Host) -> None:
    with refused(errno.EADDRNOTAVAIL):
        Socket(host, "192.168.1.12")


def test_a_closed_binding_gets_nothing_frees_its_port_and_sends_nothing(
    host: Host, clock: HeapClock, trace: list[Passage]
) -> None:
    closed, other = Socket(host, "127.0.0.1", 5000), Socket(host, "127.0.0.1")
    other.send(b"late", Address("127.0.0.1", 5000))
    closed.binding.close()
    closed.binding.close()
    clock.drain()
    assert closed.received == []
    assert fates(trace, b"late") == [Fate.SENT, Fate.NOT_LISTENING]
    Socket(host, "127.0.0.1", 5000)
    with refused(errno.EBADF):
        closed.send(b"", Address("127.0.0.1", 5000))


@pytest.mark.parametrize("target", ["127.0.0.1", "192.168.1.11", "0.0.0.0"])
def test_a_host_reaches_itself(host: Host, clock: HeapClock, target: str) -> None:
    one, two = Socket(host), Socket(host)
    one.send(b"hello", Address(target, two.port))
    assert two.received == [], "nobody is called back in the middle of sending"
    clock.drain()
    arrived = target if target != "0.0.0.0" else "127.0.0.1"
    assert [(each.source, each.destination) for each in two.received] == [
        (Address(arrived, one.port), Address(arrived, two.port))
    ]


def test_a_packet_without_delay_arrives_after_sending_has_returned(world: World, clock: HeapClock) -> None:
    one, two = Socket(world.host("one")), Socket(world.host("two"))
    one.send(b"hello", Address(address(world.hosts["two"]), two.port))
    assert two.received == []
    clock.advance(0.0)
    assert two.texts == [b"hello"]


def test_a_wildcard_binding_learns_to_which_address_a_packet_came(world: World, clock: HeapClock) -> None:
    server = world.host("server", ipv4=2)
    bound, client = Socket(server), Socket(world.host("client"))
    for index in range(2):
        client.send(b"", Address(address(server, index=index), bound.port))
    clock.drain()
    assert [each.destination.host for each in bound.received] == [address(server, index=0), address(server, index=1)]


def test_a_binding_of_one_address_gets_nothing_of_another(world: World, clock: HeapClock, trace: list[Passage]) -> None:
    server = world.host("server", ipv4=2)
    bound, client = Socket(server, address(server)), Socket(world.host("client"))
    client.send(b"astray", Address(address(server, index=1), bound.port))
    clock.drain()
    assert fates(trace, b"astray")[-1] is Fate.NOT_LISTENING


def test_an_answer_can_leave_from_the_address_that_was_asked(world: World, clock: HeapClock) -> None:
    server = world.host("server", ipv4=2)
    bound, client = Socket(server), Socket(world.host("client"))
    client.send(b"", Address(address(server, index=1), bound.port))
    clock.drain()
    bound.reply(b"answer")
    clock.drain()
    assert client.received[0].source == Address(address(server, index=1), bound.port)


def test_link_local_addresses_have_zones_inside_a_host_and_none_on_the_wire(
    world: World, clock: HeapClock, trace: list[Passage]
) -> None:
    site = world.site("home", ipv6=True)
    alice, bob = site.host("alice"), site.host("bob", interface="wlan0")
    one, two = Socket(alice, "::"), Socket(bob, "fe80::1:c%wlan0")
    one.send(b"hello", Address("fe80::1:c%eth0", two.port))
    clock.drain()
    assert two.received[0].source == Address("fe80::1:b%wlan0", one.port)
    assert two.received[0].destination == Address("fe80::1:c%wlan0", two.port)
    assert trace[0].packet.destination.host == "fe80::1:c"


def test_link_local_addresses_reach_no_other_network(world: World, clock: HeapClock, trace: list[Passage]) -> None:
    alice, bob = world.site(ipv6=True).host("alice"), world.site(ipv6=True).host("bob")
    sender, receiver = Socket(alice, "::"), Socket(bob, "::")
    sender.send(b"lost", Address("fe80::2:b%eth0", receiver.port))
    clock.drain()
    assert fates(trace, b"lost") == [Fate.SENT, Fate.NO_ROUTE]


@pytest.mark.parametrize(
    ("local", "destination", "refusal"),
    [
        ("0.0.0.0", Address("2001:db8::1", 9), errno.EAFNOSUPPORT),
        ("::", Address("192.0.2.1", 9), errno.EAFNOSUPPORT),
        ("::", Address("fe80::1", 9), errno.EINVAL),
        ("::", Address("fe80::1%wlan7", 9), errno.ENETUNREACH),
        ("127.0.0.1", Address("192.0.2.1", 9), errno.EINVAL),
        ("0.0.0.0", Address("192.0.2.1", 0), errno.EINVAL),
    ],
)
def test_what_the_kernel_refuses_to_send_is_refused(host: Host, local: str, destination: Address, refusal: int) -> None:
    with refused(refusal):
        Socket(host, local).send(b"", destination)


def test_a_datagram_longer_than_ip_allows_is_refused(host: Host) -> None:
    with refused(errno.EMSGSIZE):
        Socket(host).send(bytes(65508), Address("192.0.2.1", 9))


def test_a_host_without_link_has_no_route_until_the_link_is_back(host: Host, trace: list[Passage]) -> None:
    socket = Socket(host)
    socket.send(b"before", Address("192.0.2.1", 9))
    host.interfaces["eth0"].link.cut()
    with refused(errno.ENETUNREACH):
        socket.send(b"between", Address("192.0.2.1", 9))
    host.interfaces["eth0"].link.mend()
    socket.send(b"after", Address("192.0.2.1", 9))
    assert Fate.FORWARDED in fates(trace, b"after")


def test_a_socket_of_an_address_that_is_gone_cannot_send(host: Host) -> None:
    socket = Socket(host, "192.168.1.11")
    host.change_address("eth0", "192.168.1.77/24")
    with refused(errno.EINVAL):
        socket.send(b"", Address("192.0.2.1", 9))


def test_a_host_has_another_address_after_a_change_and_is_found_there(world: World, clock: HeapClock) -> None:
    site = world.site(nat=Nat.PORT_RESTRICTED)
    alice, bob = site.host("alice"), site.host("bob")
    one, two = Socket(alice), Socket(bob)
    site.move(bob)
    assert address(bob) == "192.168.1.13"
    one.send(b"old", Address("192.168.1.12", two.port))
    one.send(b"new", Address("192.168.1.13", two.port))
    clock.drain()
    assert two.texts == [b"new"]


def test_a_sleeping_host_receives_nothing(world: World, clock: HeapClock, trace: list[Passage]) -> None:
    one, two = world.host("one"), world.host("two")
    sender, receiver = Socket(one), Socket(two)
    two.sleep()
    sender.send(b"unheard", Address(address(two), receiver.port))
    clock.drain()
    two.wake()
    sender.send(b"heard", Address(address(two), receiver.port))
    clock.drain()
    assert receiver.texts == [b"heard"]
    assert fates(trace, b"unheard")[-1] is Fate.ASLEEP


def phone(world: World, *, weak: bool = False) -> Host:
    """A host on Wi-Fi and LTE."""
    host = world.site("wifi", nat=Nat.PORT_RESTRICTED).host("phone", interface="wlan0")
    world.site("lte", nat=Nat.SYMMETRIC).join(host, "lte0")
    host.weak = weak
    return host


def seen_from(host: Host, source: str, world: World, clock: HeapClock) -> list[str]:
    """Through which site a packet from `source` reaches a server."""
    server = world.hosts.get("server") or world.host("server")
    passed: list[Passage] = []
    world.watch(passed.append)
    Socket(host, source).send(b"hello", Address(address(server), Socket(server).port))
    clock.drain()
    return [each.place for each in passed if each.fate is Fate.FORWARDED and each.place != "internet"]


def test_the_first_interface_is_the_preferred_one(world: World, clock: HeapClock) -> None:
    assert seen_from(phone(world), "0.0.0.0", world, clock) == ["wifi"]


def test_the_second_interface_is_used_while_the_first_is_down(world: World, clock: HeapClock) -> None:
    host = phone(world)
    host.interfaces["wlan0"].link.cut()
    assert seen_from(host, "0.0.0.0", world, clock) == ["lte"]


def test_a_lower_metric_is_preferred_to_having_come_first(world: World, clock: HeapClock) -> None:
    host = world.site("lte", nat=Nat.SYMMETRIC).host("phone", interface="lte0")
    world.site("wifi", nat=Nat.PORT_RESTRICTED).join(host, "wlan0", metric=-1)
    assert seen_from(host, "0.0.0.0", world, clock) == ["wifi"]


def test_a_host_may_leave_one_network_and_join_another(world: World, clock: HeapClock, trace: list[Passage]) -> None:
    host = phone(world)
    with pytest.raises(ValueError, match="wlan0"):
        world.sites["lte"].join(host, "wlan0")
    world.sites["wifi"].leave(host)
    assert {each.host for each in host.addresses() if each.interface != "lo"} == {"192.168.2.11"}
    world.site("cafe", nat=Nat.PORT_RESTRICTED).join(host, "wlan0", metric=-1)
    assert seen_from(host, "0.0.0.0", world, clock) == ["cafe"]
    Socket(world.sites["wifi"].host("left")).send(b"gone", Address("192.168.1.11", 9))
    clock.drain()
    assert fates(trace, b"gone") == [Fate.SENT, Fate.NO_ROUTE]


def test_a_host_that_moves_has_its_interface_in_another_network(
    world: World, clock: HeapClock, trace: list[Passage]
) -> None:
    host = world.host("laptop")
    host.move(world.site("cafe", nat=Nat.PORT_RESTRICTED))
    assert [(each.host, each.interface) for each in host.addresses()][2:] == [("192.168.1.11", "eth0")]
    assert seen_from(host, "0.0.0.0", world, clock) == ["cafe"]
    host.move(world.site("home", nat=Nat.PORT_RESTRICTED), "eth0", link=Conditions(delay=0.5))
    assert seen_from(host, "0.0.0.0", world, clock) == ["home"]
    assert clock.time() == 0.5


def test_another_metric_makes_another_interface_the_preferred_one(world: World, clock: HeapClock) -> None:
    host = phone(world)
    assert seen_from(host, "0.0.0.0", world, clock) == ["wifi"]
    host.interfaces["wlan0"].metric = 1
    assert seen_from(host, "0.0.0.0", world, clock) == ["lte"]


def test_a_bound_address_has_its_packets_leave_by_its_interface(world: World, clock: HeapClock) -> None:
    assert seen_from(phone(world), "192.168.2.11", world, clock) == ["lte"]


def test_a_weak_host_sends_by_the_best_route_whatever_the_source_and_the_site_drops_it(
    world: World, clock: HeapClock, trace: list[Passage]
) -> None:
    assert seen_from(phone(world, weak=True), "192.168.2.11", world, clock) == []
    assert fates(trace, b"hello") == [Fate.SENT, Fate.SPOOFED]


def test_a_network_of_its_own_is_reached_by_its_own_interface(world: World, clock: HeapClock) -> None:
    host = phone(world)
    neighbour = world.sites["lte"].host("neighbour")
    receiver = Socket(neighbour)
    Socket(host).send(b"hello", Address(address(neighbour), receiver.port))
    clock.drain()
    assert receiver.received[0].source.host == "192.168.2.11"


@pytest.mark.parametrize(
    ("destination", "source"),
    [
        ("2001:db8:9::1", "2001:db8:1::7"),
        ("fd00:2::1", "fd00:1::7"),
        ("fe80::9%eth0", "fe80::1:b"),
    ],
)
def test_the_source_has_the_scope_and_the_label_of_the_destination(
    world: World, destination: str, source: str, trace: list[Passage]
) -> None:
    host = world.site("home", ipv6=True).host("alice")
    host.change_address("eth0", "fd00:1::7/64", "fe80::1:b/64", "2001:db8:1::7/64")
    Socket(host, "::").send(b"", Address(destination, 9))
    assert trace[0].packet.source.host == source


def test_the_weather_of_a_hosts_own_link_counts(world: World, clock: HeapClock) -> None:
    site = world.site(nat=Nat.PORT_RESTRICTED)
    alice, bob = site.host("alice", link=Conditions(delay=0.25), inward=Conditions(delay=0.5)), site.host("bob")
    one, two = Socket(alice), Socket(bob)
    one.send(b"out", Address(address(bob), two.port))
    clock.advance(0.25)
    assert two.texts == [b"out"]
    two.send(b"in", Address(address(alice), one.port))
    clock.advance(0.49)
    assert one.texts == []
    clock.advance(0.01)
    assert one.texts == [b"in"]
