"""NAT traversal within a connection: what the peer names is probed, within limits, and becomes a path."""

from __future__ import annotations

import bisect

import pytest

from quice import TransportConfig, _native
from quice._native import Event
from tests.engine.flow import Flow
from tests.engine.multihomed import CLIENT_HOSTS, PORT, SERVER_HOSTS, MultihomedPair, link
from tests.engine.pair import Pair

CONFIG = TransportConfig(nat_traversal=True)
# Of `_native.Connection.initiate_nat_traversal_round`.
PROBES_PER_SECOND = 50
ELSEWHERE = ("203.0.113.9", 5000)
REFUSED_V4 = [
    ("127.0.0.1", 5000),
    ("0.0.0.0", 5000),
    ("224.0.0.251", 5353),
    ("255.255.255.255", 5000),
    ("240.0.0.1", 5000),
    ("169.254.7.7", 5000),
    ("169.254.169.254", 80),
    ("100.100.100.200", 80),
    ("203.0.113.9", 0),
]
REFUSED_V6 = [
    ("::1", 5000),
    ("::", 5000),
    ("ff02::1", 5000),
    ("fe80::7", 5000),
    ("fd00:ec2::254", 80),
    ("::ffff:203.0.113.9", 5000),
    ("64:ff9b::a9fe:a9fe", 80),
]


def seen_addresses(pair: MultihomedPair | Pair, kind: type[Event.AddressAdded | Event.AddressRemoved]) -> list[object]:
    return [event.address for event in pair.client.seen(kind)]


def stray_hosts(pair: MultihomedPair, sender: str) -> set[str]:
    """Where this side has sent to that nobody has."""
    side = pair.client if sender == "client" else pair.server
    return {host for _, who, (host, _) in pair.strays if who is side}


def connected_over(pair: MultihomedPair, *, ipv6: bool) -> tuple[_native.Connection, _native.Connection]:
    """A connection over IPv4 alone, or one that has an IPv6 path too."""
    near, far = pair.connected()
    if ipv6:
        pair.second_path(near, index=2)
    return near, far


def test_addresses_that_answer_become_backup_paths_on_both_sides() -> None:
    pair = MultihomedPair(CONFIG)
    near, far = pair.connected()
    far.add_nat_traversal_address((SERVER_HOSTS[1], PORT))
    pair.advance(0.1)
    assert seen_addresses(pair, Event.AddressAdded) == [(SERVER_HOSTS[1], PORT)]
    near.add_nat_traversal_address((CLIENT_HOSTS[1], PORT))
    assert near.initiate_nat_traversal_round() == [(SERVER_HOSTS[1], PORT)]
    pair.drive(lambda: bool(pair.client.seen(Event.PathOpened) and pair.server.seen(Event.PathOpened)), within=2.0)
    pair.advance(0.2)
    for connection, own, remote in ((near, CLIENT_HOSTS, SERVER_HOSTS), (far, SERVER_HOSTS, CLIENT_HOSTS)):
        (_, path) = connection.paths()
        assert (path["status"], path["validated"]) == ("backup", True)
        assert (path["local"], path["remote"]) == ((own[1], PORT), (remote[1], PORT))
    pair.cut.add(link(0))
    flow = Flow(pair, near, far, 1 << 20)
    flow.run(within=5.0)
    flow.check()


def test_an_address_that_is_taken_back_is_no_longer_probed() -> None:
    pair = MultihomedPair(CONFIG)
    near, far = pair.connected()
    near.add_nat_traversal_address((CLIENT_HOSTS[1], PORT))
    far.add_nat_traversal_address(ELSEWHERE)
    pair.advance(0.1)
    assert near.initiate_nat_traversal_round() == [ELSEWHERE]
    far.remove_nat_traversal_address(ELSEWHERE)
    pair.advance(0.1)
    assert seen_addresses(pair, Event.AddressRemoved) == [ELSEWHERE]
    pair.strays.clear()
    assert near.initiate_nat_traversal_round() == []
    pair.advance(5.0)
    assert not stray_hosts(pair, "client")


@pytest.mark.parametrize("address", [ELSEWHERE, *REFUSED_V4])
def test_a_server_cannot_have_its_client_probe_these_addresses(address: tuple[str, int]) -> None:
    check_client(address, ipv6=False)


@pytest.mark.parametrize("address", [("2001:db8:9::9", 5000), *REFUSED_V6])
def test_a_server_cannot_have_its_client_probe_these_ipv6_addresses(address: tuple[str, int]) -> None:
    check_client(address, ipv6=True)


@pytest.mark.parametrize("address", [ELSEWHERE, *REFUSED_V4])
def test_a_client_cannot_have_its_server_probe_these_addresses(address: tuple[str, int]) -> None:
    check_server(address, ipv6=False)


@pytest.mark.parametrize("address", [("2001:db8:9::9", 5000), *REFUSED_V6])
def test_a_client_cannot_have_its_server_probe_these_ipv6_addresses(address: tuple[str, int]) -> None:
    check_server(address, ipv6=True)


def check_client(address: tuple[str, int], *, ipv6: bool) -> None:
    allowed = address not in REFUSED_V4 + REFUSED_V6
    pair = MultihomedPair(CONFIG)
    near, far = connected_over(pair, ipv6=ipv6)
    far.add_nat_traversal_address(address)
    near.add_nat_traversal_address((CLIENT_HOSTS[0], PORT))
    pair.advance(0.1)
    assert near.initiate_nat_traversal_round() == ([address] if allowed else [])
    pair.advance(6.0)
    assert stray_hosts(pair, "client") == ({address[0]} if allowed else set())
    # All of a round's nine probes.
    assert near.stats()["refused_probes"] == (0 if allowed else 9)
    assert not pair.client.seen(Event.Lost)


def check_server(address: tuple[str, int], *, ipv6: bool) -> None:
    allowed = address not in REFUSED_V4 + REFUSED_V6
    pair = MultihomedPair(CONFIG)
    near, far = connected_over(pair, ipv6=ipv6)
    near.add_nat_traversal_address(address)
    near.initiate_nat_traversal_round()
    pair.advance(6.0)
    assert stray_hosts(pair, "server") == ({address[0]} if allowed else set())
    assert far.stats()["refused_probes"] == (0 if allowed else 9)
    assert not pair.server.seen(Event.Lost)


@pytest.mark.parametrize("host", ["127.0.0.3", "127.255.0.1"])
def test_loopback_is_probed_by_a_connection_over_loopback(host: str) -> None:
    pair = Pair(CONFIG)
    pair.client.address, pair.server.address = ("127.0.0.1", PORT), ("127.0.0.2", PORT)
    near, far = pair.connected()
    pair.advance(0.1)
    far.add_nat_traversal_address((host, 5000))
    near.add_nat_traversal_address(pair.client.address)
    pair.advance(0.1)
    assert near.initiate_nat_traversal_round() == [(host, 5000)]
    pair.advance(6.0)
    assert {destination for _, destination in pair.astray} == {(host, 5000)}
    assert near.stats()["refused_probes"] == 0


def test_a_peer_that_starts_rounds_without_end_gets_so_many_probes_a_second() -> None:
    pair = MultihomedPair(CONFIG)
    near, far = pair.connected()
    named: list[tuple[str, int]] = []
    for start in range(300):
        for address in named:
            near.remove_nat_traversal_address(address)
        named = [("203.0.113.9", 1 + start * 8 + number) for number in range(8)]
        for address in named:
            near.add_nat_traversal_address(address)
        near.initiate_nat_traversal_round()
        pair.advance(0.01)
    times = [time for time, side, _ in pair.strays if side is pair.server]
    # Rounded, as a probe exactly a second after another is beside it by a float's width.
    busiest = max(index + 1 - bisect.bisect_right(times, time - 0.9999) for index, time in enumerate(times))
    assert busiest == PROBES_PER_SECOND
    assert far.stats()["refused_probes"] > 1000
    assert not pair.server.seen(Event.Lost)
    # The connection itself is not held up by that.
    flow = Flow(pair, near, far, 1 << 20)
    flow.run(within=5.0)
    flow.check()


def test_the_peer_takes_eight_addresses() -> None:
    pair = MultihomedPair(CONFIG)
    connections = pair.connected()
    for connection in connections:
        for number in range(8):
            connection.add_nat_traversal_address((f"203.0.113.{number + 1}", PORT))
        with pytest.raises(_native.NatTraversalRefused, match="too many"):
            connection.add_nat_traversal_address(("203.0.113.9", PORT))
    pair.advance(0.1)
    assert len(seen_addresses(pair, Event.AddressAdded)) == 8


def test_a_server_starts_no_round_and_a_client_none_without_an_address() -> None:
    pair = MultihomedPair(CONFIG)
    near, far = pair.connected()
    with pytest.raises(_native.NatTraversalRefused, match="side"):
        far.initiate_nat_traversal_round()
    with pytest.raises(_native.NatTraversalRefused, match="Not enough addresses"):
        near.initiate_nat_traversal_round()


@pytest.mark.parametrize("on", [(False, False), (True, False), (False, True)])
def test_without_the_setting_at_both_sides_there_is_none(on: tuple[bool, bool]) -> None:
    client, server = (TransportConfig(nat_traversal=one) for one in on)
    pair = Pair(client, server_config=server)
    for connection in pair.connected():
        with pytest.raises(_native.NatTraversalRefused, match="not negotiated"):
            connection.add_nat_traversal_address(ELSEWHERE)
