"""What counts as a change of network."""

from __future__ import annotations

from quice.network import LocalAddress, NetworkChange, NetworkState

WIFI, WIRE = LocalAddress("192.168.1.7", "wlan0"), LocalAddress("192.0.2.7", "eth0")
V6, LOOPBACK = LocalAddress("2001:db8::7", "eth0"), LocalAddress("127.0.0.1", "lo")
LINK_LOCAL, CONTAINER = LocalAddress("fe80::7%eth0", "eth0"), LocalAddress("fe80::8%veth1", "veth1")


def state(*addresses: LocalAddress, routes: tuple[str, ...] = ("eth0",)) -> NetworkState:
    return NetworkState.of(addresses, routes)


def test_the_same_addresses_and_routes_are_no_change() -> None:
    assert state(WIFI, V6).changed_to(state(WIFI, V6)) is None


def test_addresses_that_come_and_go_are_told() -> None:
    assert state(WIFI).changed_to(state(WIRE, V6)) == NetworkChange(added=(WIRE, V6), removed=(WIFI,))


def test_an_address_on_another_interface_is_another() -> None:
    moved = LocalAddress(WIFI.host, "eth0")
    assert state(WIFI).changed_to(state(moved)) == NetworkChange(added=(moved,), removed=(WIFI,))


def test_another_default_route_is_told_with_the_same_addresses() -> None:
    assert state(WIFI).changed_to(state(WIFI, routes=("wlan0",))) == NetworkChange(default_route=True)


def test_the_order_in_which_the_system_lists_them_is_no_change() -> None:
    before, now = state(WIFI, WIRE, routes=("a", "b")), state(WIRE, WIFI, routes=("b", "a"))
    assert before.changed_to(now) is None


def test_the_link_local_address_of_a_containers_cable_is_no_change() -> None:
    assert state(WIRE, LINK_LOCAL).changed_to(state(WIRE, LINK_LOCAL, CONTAINER)) is None


def test_two_hosts_on_a_cable_have_only_link_local_addresses_and_these_count() -> None:
    assert state(LOOPBACK).changed_to(state(LOOPBACK, LINK_LOCAL)) == NetworkChange(added=(LINK_LOCAL,))


def test_without_a_network_what_is_left_is_not_told_as_new() -> None:
    assert state(WIFI).changed_to(state(LOOPBACK)) == NetworkChange(removed=(WIFI,))


def test_waking_is_told_even_if_the_network_is_as_it_was() -> None:
    assert state(WIFI).changed_to(state(WIFI), woken=True) == NetworkChange(woken=True)
