"""The NAT as a machine: every behaviour that RFC 4787 tells apart."""

from __future__ import annotations

import random

import pytest

from quice.sim.nat import Hairpinning, NatBehaviour, Pooling, PortAllocation, Translator
from quice.sim.packet import Packet, Protocol
from quice.stun.discovery import Behaviour
from quice.wire import Address

INDEPENDENT, BY_ADDRESS, BY_PORT = Behaviour
OUTSIDE = "203.0.113.1"
ALICE, BOB = Address("192.168.1.11", 5000), Address("192.168.1.12", 5000)
SERVER, SAME_HOST, OTHER_HOST = Address("192.0.2.1", 80), Address("192.0.2.1", 81), Address("192.0.2.2", 80)


class Nat:
    """A NAT, and the packets that a test sends through it."""

    def __init__(self, behaviour: NatBehaviour, external: tuple[str, ...] = (OUTSIDE,), seed: int = 1) -> None:
        self.translator = Translator(behaviour, external, random.Random(seed))

    def out(
        self, source: Address, destination: Address, now: float = 0.0, protocol: Protocol = Protocol.UDP
    ) -> Address:
        """Where a packet from inside comes from, outside."""
        packet = self.translator.outbound(Packet(protocol, source, destination, b"data"), now)
        assert packet is not None
        assert (packet.destination, packet.data) == (destination, b"data")
        return packet.source

    def back(
        self, source: Address, destination: Address, now: float = 0.0, protocol: Protocol = Protocol.UDP
    ) -> Address | None:
        """Who inside gets a packet from outside."""
        packet = self.translator.inbound(Packet(protocol, source, destination, b"data"), now)
        assert packet is None or packet.source == source
        return None if packet is None else packet.destination


def ports(nat: Nat, count: int, port: int = 5000) -> list[int]:
    """The external ports of so many hosts that have the same internal one."""
    return [nat.out(Address(f"192.168.1.{number}", port), SERVER).port for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("mapping", "same_for_port", "same_for_host"),
    [(INDEPENDENT, True, True), (BY_ADDRESS, True, False), (BY_PORT, False, False)],
)
def test_a_mapping_depends_on_what_it_says(mapping: Behaviour, same_for_port: bool, same_for_host: bool) -> None:
    """RFC 4787 §4.1."""
    nat = Nat(NatBehaviour(mapping=mapping, ports=PortAllocation.SEQUENTIAL))
    first = nat.out(ALICE, SERVER)
    assert first.host == OUTSIDE
    assert (nat.out(ALICE, SAME_HOST) == first) is same_for_port
    assert (nat.out(ALICE, OTHER_HOST) == first) is same_for_host
    assert nat.out(ALICE, SERVER) == first


@pytest.mark.parametrize(
    ("filtering", "from_port", "from_host"),
    [(INDEPENDENT, True, True), (BY_ADDRESS, True, False), (BY_PORT, False, False)],
)
@pytest.mark.parametrize("mapping", Behaviour)
def test_a_filter_depends_on_what_it_says(
    mapping: Behaviour, filtering: Behaviour, from_port: bool, from_host: bool
) -> None:
    """RFC 4787 §5; every filter is found with every mapping."""
    nat = Nat(NatBehaviour(mapping=mapping, filtering=filtering))
    outside = nat.out(ALICE, SERVER)
    assert nat.back(SERVER, outside) == ALICE
    assert (nat.back(SAME_HOST, outside) == ALICE) is from_port
    assert (nat.back(OTHER_HOST, outside) == ALICE) is from_host


def test_what_has_no_mapping_is_not_let_in() -> None:
    nat = Nat(NatBehaviour(filtering=INDEPENDENT))
    assert nat.back(SERVER, Address(OUTSIDE, 5000)) is None


def test_a_filter_opens_for_whom_one_mapping_sends_to_and_no_other() -> None:
    nat = Nat(NatBehaviour(mapping=BY_PORT, filtering=BY_PORT))
    first, second = nat.out(ALICE, SERVER), nat.out(ALICE, OTHER_HOST)
    assert nat.back(OTHER_HOST, second) == ALICE
    assert nat.back(OTHER_HOST, first) is None


def test_a_port_is_preserved_while_it_is_free() -> None:
    nat = Nat(NatBehaviour(ports=PortAllocation.PRESERVED))
    first, second = ports(nat, 2)
    assert first == 5000 != second


def test_a_port_is_free_again_when_its_mapping_has_expired() -> None:
    nat = Nat(NatBehaviour(timeout=30.0))
    nat.out(ALICE, SERVER, now=0.0)
    assert nat.out(BOB, SERVER, now=30.0).port == 5000
    assert nat.back(SERVER, Address(OUTSIDE, 5000), now=30.0) == BOB


def test_sequential_ports_follow_each_other_from_a_port_that_the_seed_says() -> None:
    first, *others = ports(Nat(NatBehaviour(ports=PortAllocation.SEQUENTIAL)), 5)
    assert others == [first + 1, first + 2, first + 3, first + 4]
    assert ports(Nat(NatBehaviour(ports=PortAllocation.SEQUENTIAL), seed=2), 1) != [first]


def test_sequential_ports_go_round() -> None:
    nat = Nat(NatBehaviour(mapping=BY_PORT, ports=PortAllocation.SEQUENTIAL))
    seen = [nat.out(ALICE, Address("192.0.2.1", port)).port for port in range(1, 64513)]
    assert sorted(seen) == list(range(1024, 65536))


def test_a_nat_without_free_ports_lets_nothing_out() -> None:
    nat = Nat(NatBehaviour(mapping=BY_PORT, ports=PortAllocation.SEQUENTIAL))
    for port in range(1, 64513):
        nat.out(ALICE, Address("192.0.2.1", port))
    assert nat.translator.outbound(Packet(Protocol.UDP, ALICE, OTHER_HOST, b""), 0.0) is None
    assert nat.out(ALICE, OTHER_HOST, now=120.0).port >= 1024


def test_random_ports_are_of_the_seed() -> None:
    behaviour = NatBehaviour(ports=PortAllocation.RANDOM)
    drawn = ports(Nat(behaviour), 20)
    assert len(set(drawn)) == 20
    assert drawn == ports(Nat(behaviour), 20) != ports(Nat(behaviour, seed=2), 20)


@pytest.mark.parametrize("allocation", [PortAllocation.PRESERVED, PortAllocation.RANDOM, PortAllocation.SEQUENTIAL])
@pytest.mark.parametrize("port", [5000, 5001, 1000, 1001])
def test_parity_and_the_range_of_well_known_ports_are_kept(allocation: PortAllocation, port: int) -> None:
    """RFC 4787 §4.2.1, §4.2.2 (REQ-3, REQ-4)."""
    drawn = ports(Nat(NatBehaviour(ports=allocation, parity=True)), 20, port)
    assert len(set(drawn)) == 20
    assert {each % 2 for each in drawn} == {port % 2}
    assert {each < 1024 for each in drawn} == {port < 1024}


def test_an_overloaded_port_is_told_apart_by_who_answers() -> None:
    """RFC 4787 §4.2.1: two hosts that speak to one other get each other's answers."""
    nat = Nat(NatBehaviour(ports=PortAllocation.OVERLOADED))
    assert nat.out(ALICE, SERVER) == nat.out(BOB, OTHER_HOST) == Address(OUTSIDE, 5000)
    assert nat.back(SERVER, Address(OUTSIDE, 5000)) == ALICE
    assert nat.back(OTHER_HOST, Address(OUTSIDE, 5000)) == BOB


@pytest.mark.parametrize("filtering", Behaviour)
def test_a_mapping_lives_as_long_as_its_timeout(filtering: Behaviour) -> None:
    nat = Nat(NatBehaviour(filtering=filtering, timeout=30.0))
    outside = nat.out(ALICE, SERVER, now=100.0)
    assert nat.back(SERVER, outside, now=129.9) == ALICE
    assert nat.back(SERVER, outside, now=130.0) is None


def test_an_expired_mapping_is_replaced_by_a_new_one() -> None:
    nat = Nat(NatBehaviour(ports=PortAllocation.SEQUENTIAL, timeout=30.0))
    first = nat.out(ALICE, SERVER, now=0.0)
    assert nat.out(ALICE, SERVER, now=29.0) == first
    assert nat.out(ALICE, SERVER, now=59.0) != first


@pytest.mark.parametrize("filtering", Behaviour)
@pytest.mark.parametrize("by_inbound", [True, False])
def test_what_comes_in_refreshes_where_the_nat_says_so(filtering: Behaviour, by_inbound: bool) -> None:
    """RFC 4787 §4.3."""
    nat = Nat(NatBehaviour(filtering=filtering, timeout=30.0, refreshed_by_inbound=by_inbound))
    outside = nat.out(ALICE, SERVER, now=0.0)
    nat.back(SERVER, outside, now=20.0)
    assert (nat.back(SERVER, outside, now=40.0) == ALICE) is by_inbound


def test_a_packet_that_is_filtered_refreshes_nothing() -> None:
    nat = Nat(NatBehaviour(timeout=30.0, refreshed_by_inbound=True))
    outside = nat.out(ALICE, SERVER, now=0.0)
    nat.back(OTHER_HOST, outside, now=20.0)
    assert nat.back(SERVER, outside, now=40.0) is None


def test_a_filter_forgets_whom_nothing_is_sent_to_any_more_while_the_mapping_lives() -> None:
    nat = Nat(NatBehaviour(timeout=30.0))
    outside = nat.out(ALICE, SERVER, now=0.0)
    nat.out(ALICE, OTHER_HOST, now=20.0)
    assert nat.back(OTHER_HOST, outside, now=40.0) == ALICE
    assert nat.back(SERVER, outside, now=40.0) is None


@pytest.mark.parametrize(("hairpinning", "source"), [
    (Hairpinning.EXTERNAL_SOURCE, Address(OUTSIDE, 5000)),
    (Hairpinning.INTERNAL_SOURCE, ALICE),
])  # fmt: skip
def test_a_hairpin_reaches_the_neighbour_from_the_source_that_the_nat_shows(
    hairpinning: Hairpinning, source: Address
) -> None:
    """RFC 4787 §6."""
    nat = Nat(NatBehaviour(filtering=INDEPENDENT, hairpinning=hairpinning))
    outside = nat.out(BOB, SERVER)
    turned = nat.translator.hairpin(Packet(Protocol.UDP, ALICE, outside, b"data"), 0.0)
    # Alice's port was taken by Bob's mapping.
    alice_outside = Address(OUTSIDE, nat.out(ALICE, SERVER).port)
    expected = alice_outside if hairpinning is Hairpinning.EXTERNAL_SOURCE else ALICE
    assert turned is not None
    assert (turned.source, turned.destination) == (expected, BOB)


def test_a_hairpin_passes_the_filter_as_if_it_came_from_outside() -> None:
    nat = Nat(NatBehaviour(hairpinning=Hairpinning.EXTERNAL_SOURCE))
    bob, alice = nat.out(BOB, SERVER), nat.out(ALICE, SERVER)
    packet = Packet(Protocol.UDP, ALICE, bob, b"")
    assert nat.translator.hairpin(packet, 0.0) is None
    nat.out(BOB, alice)
    assert nat.translator.hairpin(packet, 0.0) is not None


def test_a_nat_without_hairpinning_has_no_way_back_in() -> None:
    nat = Nat(NatBehaviour(filtering=INDEPENDENT))
    bob = nat.out(BOB, SERVER)
    assert nat.translator.hairpin(Packet(Protocol.UDP, ALICE, bob, b""), 0.0) is None


POOL = tuple(f"203.0.113.{number}" for number in range(1, 9))


def test_paired_addresses_stay_with_a_host() -> None:
    """RFC 4787 §4.1 (REQ-2)."""
    nat = Nat(NatBehaviour(pooling=Pooling.PAIRED), POOL)
    for number in range(1, 30):
        assert len({nat.out(Address(f"192.168.1.{number}", port), SERVER).host for port in range(5000, 5020)}) == 1
    assert len({nat.out(Address(f"192.168.1.{number}", 5000), SERVER).host for number in range(1, 30)}) > 4


def test_arbitrary_addresses_change_from_mapping_to_mapping() -> None:
    nat = Nat(NatBehaviour(pooling=Pooling.ARBITRARY), POOL)
    assert len({nat.out(Address("192.168.1.11", port), SERVER).host for port in range(5000, 5020)}) > 4


def test_mappings_of_tcp_are_others_than_those_of_udp_and_live_longer() -> None:
    nat = Nat(NatBehaviour(timeout=30.0))
    udp, tcp = nat.out(ALICE, SERVER), nat.out(ALICE, SERVER, protocol=Protocol.TCP)
    assert udp == tcp == Address(OUTSIDE, 5000)
    assert nat.back(SERVER, udp, now=60.0) is None
    assert nat.back(SERVER, tcp, now=7400.0, protocol=Protocol.TCP) == ALICE
    assert nat.back(SERVER, tcp, now=7440.0, protocol=Protocol.TCP) is None


def test_a_reboot_forgets_every_mapping() -> None:
    nat = Nat(NatBehaviour(filtering=INDEPENDENT))
    outside = nat.out(ALICE, SERVER)
    nat.translator.reboot()
    assert nat.back(SERVER, outside) is None
    assert nat.out(ALICE, SERVER) == Address(OUTSIDE, 5000)


def test_a_reboot_may_bring_another_external_address() -> None:
    nat = Nat(NatBehaviour(), POOL)
    nat.out(ALICE, SERVER)
    nat.translator.reboot(["198.51.100.1"])
    assert nat.out(ALICE, SERVER) == Address("198.51.100.1", 5000)


@pytest.mark.parametrize("allocation", PortAllocation)
def test_rebinding_gives_another_port_and_what_comes_to_the_old_one_is_lost(allocation: PortAllocation) -> None:
    nat = Nat(NatBehaviour(filtering=INDEPENDENT, ports=allocation))
    for _ in range(5):
        before, tcp = nat.out(ALICE, SERVER), nat.out(ALICE, SERVER, protocol=Protocol.TCP)
        nat.translator.rebind()
        assert nat.back(SERVER, before) is None
        assert nat.out(ALICE, SERVER).port != before.port
        assert nat.out(ALICE, SERVER, protocol=Protocol.TCP) == tcp


def test_ipv6_is_not_translated() -> None:
    nat = Nat(NatBehaviour())
    inside, outside = Address("2001:db8:1::11", 5000), Address("2001:db8::1", 80)
    assert nat.out(inside, outside) == inside
    assert nat.back(outside, inside) == inside
