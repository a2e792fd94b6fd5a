"""Stateful firewalls and UDP-blocking networks, as machines."""

from __future__ import annotations

import pytest

from quice.sim.firewall import Firewall, FirewallBehaviour, UdpBlock
from quice.sim.packet import Packet, Protocol
from quice.stun.discovery import Behaviour
from quice.wire import Address

INSIDE, OUTSIDE, STRANGER = Address("2001:db8:1::11", 5000), Address("2001:db8::1", 80), Address("2001:db8::2", 80)
INSIDE4, OUTSIDE4 = Address("192.0.2.11", 5000), Address("192.0.2.1", 80)


def packet(source: Address, destination: Address, protocol: Protocol = Protocol.UDP) -> Packet:
    return Packet(protocol, source, destination, b"data")


@pytest.fixture
def firewall() -> Firewall:
    return Firewall(FirewallBehaviour(timeout=60.0), ipv4=False)


def test_what_answers_is_let_in_unchanged_and_nothing_else(firewall: Firewall) -> None:
    firewall.outbound(packet(INSIDE, OUTSIDE), 0.0)
    answer = packet(OUTSIDE, INSIDE)
    assert firewall.inbound(answer, 1.0) == answer
    assert firewall.inbound(packet(STRANGER, INSIDE), 1.0) is None
    assert firewall.inbound(packet(OUTSIDE, INSIDE._replace(port=5001)), 1.0) is None
    assert firewall.inbound(packet(OUTSIDE, INSIDE, Protocol.TCP), 1.0) is None


def test_a_flow_lives_while_something_passes_in_either_direction(firewall: Firewall) -> None:
    firewall.outbound(packet(INSIDE, OUTSIDE), 0.0)
    for now in (59.0, 118.0):
        assert firewall.inbound(packet(OUTSIDE, INSIDE), now) is not None
    assert firewall.inbound(packet(OUTSIDE, INSIDE), 178.0) is None


def test_a_stranger_refreshes_nothing(firewall: Firewall) -> None:
    firewall.outbound(packet(INSIDE, OUTSIDE), 0.0)
    firewall.inbound(packet(STRANGER, INSIDE), 59.0)
    assert firewall.inbound(packet(OUTSIDE, INSIDE), 60.0) is None


def test_tcp_lives_longer_than_udp(firewall: Firewall) -> None:
    firewall.outbound(packet(INSIDE, OUTSIDE, Protocol.TCP), 0.0)
    assert firewall.inbound(packet(OUTSIDE, INSIDE, Protocol.TCP), 7000.0) is not None


def test_a_reboot_forgets_every_flow(firewall: Firewall) -> None:
    firewall.outbound(packet(INSIDE, OUTSIDE), 0.0)
    firewall.reboot()
    assert firewall.inbound(packet(OUTSIDE, INSIDE), 1.0) is None


@pytest.mark.parametrize("ipv4", [True, False])
def test_ipv4_is_filtered_only_where_no_nat_does_it(ipv4: bool) -> None:
    firewall = Firewall(FirewallBehaviour(), ipv4=ipv4)
    assert (firewall.inbound(packet(OUTSIDE4, INSIDE4), 0.0) is None) is ipv4


@pytest.mark.parametrize(
    ("filtering", "lets_in"),
    [
        (Behaviour.ENDPOINT_INDEPENDENT, True),
        (Behaviour.ADDRESS_DEPENDENT, False),
        (Behaviour.ADDRESS_AND_PORT_DEPENDENT, False),
    ],
)
def test_simple_security_may_let_in_everybody_once_a_port_has_spoken(filtering: Behaviour, lets_in: bool) -> None:
    """RFC 6092 §3.2.4: endpoint-independent filtering is the recommended one."""
    firewall = Firewall(FirewallBehaviour(filtering), ipv4=False)
    assert firewall.inbound(packet(STRANGER, INSIDE), 0.0) is None
    firewall.outbound(packet(INSIDE, OUTSIDE), 0.0)
    assert (firewall.inbound(packet(STRANGER, INSIDE), 1.0) is not None) is lets_in


@pytest.mark.parametrize(("ports", "passes"), [((), False), ((53,), False), ((53, 80), True)])
def test_blocked_udp_passes_in_neither_direction_and_tcp_in_both(ports: tuple[int, ...], passes: bool) -> None:
    block = UdpBlock(ports)
    assert (block.outbound(packet(INSIDE, OUTSIDE), 0.0) is not None) is passes
    assert (block.inbound(packet(OUTSIDE, INSIDE), 0.0) is not None) is passes
    assert block.outbound(packet(INSIDE, OUTSIDE, Protocol.TCP), 0.0) is not None
    assert block.inbound(packet(OUTSIDE, INSIDE, Protocol.TCP), 0.0) is not None
