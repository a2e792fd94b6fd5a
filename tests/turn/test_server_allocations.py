"""Allocations: who gets one, for how long, and what they are refused for (RFC 8656 §7, §8)."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from quice.stun.attributes import (
    AdditionalAddressFamily,
    AddressErrorCode,
    Attribute,
    DontFragment,
    EvenPort,
    Lifetime,
    RequestedAddressFamily,
    RequestedTransport,
    ReservationToken,
    XorMappedAddress,
    XorRelayedAddress,
)
from quice.stun.message import Kind, Message, Method
from quice.turn.orders import CloseFamily, Delete, FiveTuple, Open
from quice.turn.server import IPV4, IPV6
from quice.wire import Address
from tests.turn.serving import ALICE, BOB, UDP, Service, account

BOTH = (IPV4, IPV6)


def test_an_allocation_says_where_it_is_how_long_it_lasts_and_where_it_was_asked_from() -> None:
    answer = Service().allocate()
    assert answer.get(XorRelayedAddress) == XorRelayedAddress(Address("192.0.2.1", 50000))
    assert answer.get(Lifetime) == Lifetime(600)
    assert answer.get(XorMappedAddress) == XorMappedAddress(ALICE.client)


def test_the_same_request_again_gets_the_same_answer_and_another_one_is_refused() -> None:
    service = Service()
    request = service.compose(Method.ALLOCATE, UDP)
    first = service.deliver(request)
    assert service.deliver(request) == first
    assert len(service.ordered(Open)) == 1
    assert service.code(Method.ALLOCATE, UDP) == 437


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ((), 400),
        ((RequestedTransport(6),), 442),
        ((UDP, RequestedAddressFamily(3)), 440),
        ((UDP, RequestedAddressFamily(IPV4), AdditionalAddressFamily(IPV6)), 400),
        ((UDP, AdditionalAddressFamily(IPV4)), 400),
        ((UDP, ReservationToken(bytes(8)), EvenPort(reserve=False)), 400),
        ((UDP, ReservationToken(bytes(8)), RequestedAddressFamily(IPV4)), 400),
        ((UDP, ReservationToken(bytes(8))), 508),
        ((UDP, EvenPort(reserve=True)), 508),
    ],
)
def test_what_can_not_be_served_is_refused_with_the_code_of_its_rule(
    attributes: tuple[Attribute, ...], code: int
) -> None:
    service = Service(families=BOTH)
    assert service.code(Method.ALLOCATE, *attributes) == code
    assert service.orders == []
    assert len(service.turn) == 0


def test_an_even_port_and_unfragmented_data_can_be_had() -> None:
    service = Service()
    service.allocate(EvenPort(reserve=False), DontFragment())
    (order,) = service.ordered(Open)
    assert order.even


@pytest.mark.parametrize(("asked", "granted"), [(1, 600), (600, 600), (1800, 1800), (1_000_000, 3600)])
def test_a_lifetime_is_granted_within_bounds(asked: int, granted: int) -> None:
    service = Service()
    assert service.allocate(Lifetime(asked)).get(Lifetime) == Lifetime(granted)
    assert service.ask(Method.REFRESH, Lifetime(asked)).get(Lifetime) == Lifetime(granted)


def test_an_allocation_ends_when_it_is_not_refreshed_and_lives_on_when_it_is() -> None:
    service = Service()
    service.allocate()
    service.wait(599)
    assert service.refresh() == 0
    service.wait(599)
    assert len(service.turn) == 1
    service.wait(1)
    assert len(service.turn) == 0
    assert [order.allocation for order in service.ordered(Delete)] == [1]
    assert service.refresh() == 437


def test_a_refresh_with_no_lifetime_releases_the_allocation_and_a_new_one_can_be_made() -> None:
    service = Service()
    service.allocate()
    assert service.ask(Method.REFRESH, Lifetime(0)).get(Lifetime) == Lifetime(0)
    assert len(service.ordered(Delete)) == 1
    service.allocate()


def test_ipv6_is_allocated_where_it_is_asked_for() -> None:
    service = Service(families=BOTH)
    answer = service.allocate(RequestedAddressFamily(IPV6))
    assert [a.address.host for a in answer.attributes if isinstance(a, XorRelayedAddress)] == ["2001:db8::1"]
    assert service.code(Method.REFRESH, RequestedAddressFamily(IPV4)) == 443


def test_a_family_that_is_not_there_is_refused() -> None:
    service = Service()
    assert service.code(Method.ALLOCATE, UDP, RequestedAddressFamily(IPV6)) == 440
    assert len(service.turn) == 0


def test_of_two_families_one_is_better_than_none_and_the_answer_says_what_the_other_lacks() -> None:
    service = Service(families=(IPV4,))
    answer = service.allocate(AdditionalAddressFamily(IPV6))
    assert len([a for a in answer.attributes if isinstance(a, XorRelayedAddress)]) == 1
    error = answer.get(AddressErrorCode)
    assert error is not None
    assert (error.family, error.code) == (IPV6, 440)


def test_two_families_live_and_are_released_each_by_itself() -> None:
    service = Service(families=BOTH)
    answer = service.allocate(AdditionalAddressFamily(IPV6))
    assert len([a for a in answer.attributes if isinstance(a, XorRelayedAddress)]) == 2
    assert service.code(Method.REFRESH, Lifetime(0), RequestedAddressFamily(IPV6)) == 0
    assert service.ordered(CloseFamily) == [CloseFamily(1, IPV6)]
    service.wait(300)
    assert service.code(Method.REFRESH, Lifetime(600), RequestedAddressFamily(IPV4)) == 0
    service.wait(400)
    assert len(service.turn) == 1


def test_one_user_has_as_many_allocations_as_the_quota_says_whatever_credentials_it_shows() -> None:
    service = Service(of_one=2)
    clients = [FiveTuple(Address("203.0.113.7", port), ALICE.server) for port in (1, 2, 3)]
    service.allocate(client=clients[0])
    service.allocate(client=clients[1], user=account(lifetime=7200))
    assert service.code(Method.ALLOCATE, UDP, client=clients[2]) == 486
    service.allocate(client=BOB, user=account("bob"))
    service.refresh(0, client=clients[0])
    service.allocate(client=clients[2])


def test_there_is_room_for_so_many_allocations() -> None:
    service = Service(of_all=1)
    service.allocate()
    assert service.code(Method.ALLOCATE, UDP, client=BOB, user=account("bob")) == 508


def test_what_was_allocated_over_a_connection_goes_with_it() -> None:
    service = Service()
    client = FiveTuple(ALICE.client, ALICE.server, tcp=True)
    service.allocate(client=client)
    service.turn.gone(client)
    service.settle()
    assert len(service.turn) == 0
    assert len(service.ordered(Delete)) == 1
    service.turn.gone(client)


def test_the_same_addresses_over_udp_and_tcp_are_two_clients() -> None:
    service = Service()
    service.allocate()
    service.allocate(client=FiveTuple(ALICE.client, ALICE.server, tcp=True))
    assert len(service.turn) == 2


def test_an_attribute_that_must_be_understood_and_is_not_is_named() -> None:
    service = Service()
    user = service._known(ALICE, None)
    data = bytearray(service.request(Method.ALLOCATE, UDP, *user.attributes()).encode(fingerprint=False))
    data += b"\x7f\xff\0\0"
    data[2:4] = (len(data) - 20).to_bytes(2, "big")
    raw = Message.decode(bytes(data))
    assert raw.unknown_required == (0x7FFF,)
    # Signed as a client would that knows the attribute.
    data[2:4] = (len(data) - 20 + 24).to_bytes(2, "big")
    data += b"\0\x08\0\x14" + hmac.digest(user.key, bytes(data), hashlib.sha1)
    (answer,) = service.deliver(bytes(data))
    decoded = Message.decode(answer)
    assert decoded.kind is Kind.ERROR
    assert decoded.error.code == 420
