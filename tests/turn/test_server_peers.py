"""Permissions and channels: which peers a client may speak with, and for how long (RFC 8656 §9 to §12)."""

from __future__ import annotations

import ipaddress

import pytest

from quice.stun.attributes import ChannelNumber, Data, XorPeerAddress
from quice.stun.message import Kind, Message, Method
from quice.turn.orders import BindChannel, Forbid, Permit, UnbindChannel
from quice.turn.policy import PeerPolicy
from quice.wire import Address
from tests.turn.serving import BOB, PEER, PEER6, Service, account

OTHER_PEER = Address("198.51.100.10", 6001)


@pytest.fixture
def service() -> Service:
    service = Service()
    service.allocate()
    return service


def test_a_permission_is_installed_for_the_host_once_and_ends_after_five_minutes(service: Service) -> None:
    assert service.permit(PEER, OTHER_PEER) == 0
    assert service.permit(PEER) == 0
    assert service.ordered(Permit) == [Permit(1, PEER.host), Permit(1, OTHER_PEER.host)]
    service.wait(299)
    assert service.permit(PEER) == 0
    service.wait(1)
    assert service.ordered(Forbid) == [Forbid(1, OTHER_PEER.host)]
    service.wait(299)
    assert service.ordered(Forbid) == [Forbid(1, PEER.host)]


def test_a_channel_installs_a_permission_and_lasts_twice_as_long(service: Service) -> None:
    service.refresh(3600)
    assert service.bind(0x4000, PEER) == 0
    assert service.ordered(Permit) == [Permit(1, PEER.host)]
    assert service.ordered(BindChannel) == [BindChannel(1, 0x4000, PEER)]
    service.wait(300)
    assert service.ordered(Forbid) == [Forbid(1, PEER.host)]
    service.wait(299)
    assert service.bind(0x4000, PEER) == 0
    service.wait(599)
    assert service.ordered(UnbindChannel) == []
    service.wait(1)
    assert service.ordered(UnbindChannel) == [UnbindChannel(1, 0x4000)]
    assert service.ordered(BindChannel) == []


def test_a_number_has_one_peer_and_a_peer_one_number(service: Service) -> None:
    assert service.bind(0x4000, PEER) == 0
    assert service.bind(0x4000, OTHER_PEER) == 400
    assert service.bind(0x4001, PEER) == 400
    assert service.bind(0x4001, PEER._replace(port=1)) == 0


@pytest.mark.parametrize(("number", "code"), [(0x3FFF, 400), (0x4000, 0), (0x4FFF, 0), (0x7FFF, 0), (0x8000, 400)])
def test_only_channel_numbers_are_channel_numbers(service: Service, number: int, code: int) -> None:
    assert service.bind(number, PEER) == code


def test_what_lacks_a_peer_or_a_number_is_a_bad_request(service: Service) -> None:
    assert service.permit() == 400
    assert service.code(Method.CHANNEL_BIND, ChannelNumber(0x4000)) == 400
    assert service.code(Method.CHANNEL_BIND, XorPeerAddress(PEER)) == 400
    assert service.bind(0x4000, PEER._replace(port=0)) == 400


def test_a_peer_of_a_family_that_is_not_allocated_is_refused(service: Service) -> None:
    assert service.permit(PEER6) == 443
    assert service.bind(0x4000, PEER6) == 443


def test_of_several_peers_all_are_permitted_or_none(service: Service) -> None:
    assert service.permit(PEER, Address("10.0.0.1", 1)) == 403
    assert service.ordered(Permit) == []


def test_without_an_allocation_there_is_nothing_to_ask_for() -> None:
    service = Service()
    assert service.permit(PEER) == 437
    assert service.bind(0x4000, PEER) == 437
    assert service.refresh() == 437


def test_another_user_can_not_use_the_allocation(service: Service) -> None:
    for method in (Method.CREATE_PERMISSION, Method.CHANNEL_BIND, Method.REFRESH):
        assert service.code(method, XorPeerAddress(PEER), ChannelNumber(0x4000), user=account("bob")) == 441


def test_permissions_and_channels_have_an_end(service: Service) -> None:
    assert service.permit(*[Address(f"198.51.100.{n}", 1) for n in range(256)]) == 0
    assert service.permit(Address("198.51.101.1", 1)) == 508
    for number in range(256):
        assert service.bind(0x4000 + number, PEER._replace(port=1 + number)) == 0
    assert service.bind(0x4100, PEER._replace(port=1000)) == 508


def test_what_belongs_to_one_client_does_not_belong_to_another(service: Service) -> None:
    service.allocate(client=BOB, user=account("bob"))
    service.bind(0x4000, PEER)
    assert service.bind(0x4000, OTHER_PEER, client=BOB) == 0
    assert service.ordered(BindChannel) == [BindChannel(1, 0x4000, PEER), BindChannel(2, 0x4000, OTHER_PEER)]


def test_data_is_not_the_control_planes_business(service: Service) -> None:
    indication = Message(Method.SEND, Kind.INDICATION, bytes(12), (XorPeerAddress(PEER), Data(b"data")))
    assert service.deliver(indication.encode()) == []
    assert service.deliver(b"\x40\0\0\x04data") == []
    assert service.orders == [order for order in service.orders if not isinstance(order, Permit)]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "169.254.169.254",
        "169.254.1.1",
        "224.0.0.1",
        "239.255.255.250",
        "255.255.255.255",
        "240.0.0.1",
        "192.0.0.1",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:8.8.8.8",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "fec0::1",
        "ff02::1",
        "100::1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "2002:7f00:1::1",
        "2002:a00:1::",
    ],
)
def test_nobody_in_a_network_of_the_servers_own_is_reached(host: str) -> None:
    assert not PeerPolicy().allows(ipaddress.ip_address(host))
    assert PeerPolicy([ipaddress.ip_network(host)]).allows(ipaddress.ip_address(host))


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "172.32.0.1", "203.0.113.9", "2001:db8::1", "2a00::1", "64:ff9b::8.8.8.8", "2002:808:808::1"]
)
def test_who_is_in_the_internet_is_reached(host: str) -> None:
    assert PeerPolicy().allows(ipaddress.ip_address(host))


def test_relayed_addresses_of_the_server_itself_are_reached_though_they_are_private() -> None:
    policy = PeerPolicy()
    policy.own.add(ipaddress.ip_address("192.168.1.2"))
    assert policy.allows(ipaddress.ip_address("192.168.1.2"))
    assert not policy.allows(ipaddress.ip_address("192.168.1.3"))
