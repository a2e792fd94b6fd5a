"""A NAT never claims to be what it isn't: each kind is measured by a STUN probe (RFC 5780 §4)."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import pytest

from lab import probe
from lab.ground import LabError, available
from lab.network import Lab
from lab.site import Host, Site
from quice.sim.kinds import BEHAVIOURS, CLAIMS, Nat
from quice.sim.nat import Hairpinning, NatBehaviour, PortAllocation
from quice.stun.discovery import Behaviour, Verdict

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]

INDEPENDENT, BY_ADDRESS, BY_PORT = Behaviour
T = TypeVar("T")
PROBE = (sys.executable, "-m", "lab.probe")


@contextmanager
def _lab_with_server() -> Iterator[tuple[Lab, Host]]:
    """A lab and a server in it that answers probes."""
    with Lab() as lab:
        server = lab.server()
        with probe.serving(server, server.address, server.second_address):
            yield lab, server


@pytest.mark.parametrize("nat", Nat)
def test_a_nat_behaves_as_its_name_says(nat: Nat) -> None:
    assert probe.verdict_of(nat) == CLAIMS[nat]


def test_every_behaviour_is_measured_as_it_is_set() -> None:
    behaviours = [NatBehaviour(*each) for each in itertools.product(Behaviour, Behaviour, _PORTS)]
    with _lab_with_server() as (lab, server):
        hosts = [lab.site(behaviour).host() for behaviour in behaviours]
        measured = _at_once(lambda host: probe.verdict(host, server.address), hosts)
    assert measured == [
        Verdict(each.mapping, each.filtering, each.ports is PortAllocation.PRESERVED) for each in behaviours
    ]


_PORTS = (PortAllocation.PRESERVED, PortAllocation.RANDOM)


def _at_once(measure: Callable[[Host], T], hosts: Sequence[Host]) -> list[T]:
    """What each host measures: most of that is waiting for what a filter does not let in."""
    with ThreadPoolExecutor(len(hosts)) as threads:
        return list(threads.map(measure, hosts))


def test_a_nat_allocates_ports_as_it_says_and_hairpins_or_not() -> None:
    with _lab_with_server() as (lab, server):
        hosts = [lab.site(nat).host() for nat in BEHAVIOURS]
        allocated = _at_once(lambda host: host.run(*PROBE, "ports", server.address).strip(), hosts)
        hairpinning = _at_once(lambda host: host.run(*PROBE, "hairpinning", server.address).strip(), hosts)
    assert allocated == [behaviour.ports.value for behaviour in BEHAVIOURS.values()]
    assert hairpinning == [behaviour.hairpinning.value for behaviour in BEHAVIOURS.values()]


def test_hairpinning_goes_with_every_filter() -> None:
    behaviours = [
        NatBehaviour(INDEPENDENT, filtering, ports, hairpinning=Hairpinning.EXTERNAL_SOURCE)
        for filtering, ports in itertools.product(Behaviour, _PORTS)
    ]
    with _lab_with_server() as (lab, server):
        hosts = [lab.site(behaviour).host() for behaviour in behaviours]
        found = _at_once(lambda host: host.run(*PROBE, "hairpinning", server.address).strip(), hosts)
        verdicts = _at_once(lambda host: probe.verdict(host, server.address), hosts)
    assert found == ["external_source"] * len(behaviours)
    assert verdicts == [
        Verdict(each.mapping, each.filtering, each.ports is PortAllocation.PRESERVED) for each in behaviours
    ]


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (NatBehaviour(ports=PortAllocation.OVERLOADED), "overloaded ports"),
        (NatBehaviour(parity=True), "parity of ports"),
        (NatBehaviour(mapping=BY_PORT, hairpinning=Hairpinning.EXTERNAL_SOURCE), "hairpinning by a symmetric NAT"),
    ],
)
def test_what_netfilter_cannot_do_is_said(behaviour: NatBehaviour, said: str) -> None:
    with Lab() as lab, pytest.raises(LabError, match=f"no NAT of the lab has {said}"):
        lab.site(behaviour)


def test_two_nats_behave_as_the_stricter_of_each() -> None:
    homes = (Nat.FULL_CONE, Nat.PORT_RESTRICTED_RANDOM, Nat.SYMMETRIC)
    carriers = (Nat.FULL_CONE, Nat.HAIRPINNING)
    with _lab_with_server() as (lab, server):
        above = [lab.site(carrier, carrier=True) for carrier in carriers]
        hosts = [lab.site(home, behind=carrier).host() for home in homes for carrier in above]
        measured = _at_once(lambda host: probe.verdict(host, server.address), hosts)
    assert measured == [_stricter(CLAIMS[home], CLAIMS[carrier]) for home in homes for carrier in carriers]


def _stricter(*both: Verdict) -> Verdict:
    strictness = list(Behaviour)
    return Verdict(
        max((each.mapping for each in both), key=strictness.index),
        max((each.filtering for each in both), key=strictness.index),
        all(each.preserves_port for each in both),
    )


@pytest.mark.parametrize("nat", [Nat.FULL_CONE, Nat.PORT_RESTRICTED])
def test_two_hosts_with_one_port_have_a_mapping_each(nat: Nat) -> None:
    with _lab_with_server() as (lab, server):
        site = lab.site(nat)
        one, two = site.host(), site.host()
        first, second, again = (probe.mapping_of(host, server.address, 5000) for host in (one, two, one))
    assert first == again == (site.address, 5000)
    assert second.host == site.address
    assert second.port != 5000


@pytest.mark.parametrize("nat", [Nat.FULL_CONE, Nat.PORT_RESTRICTED, Nat.SYMMETRIC_SEQUENTIAL, Nat.HAIRPINNING])
def test_a_nat_gives_another_port_and_address_while_running(nat: Nat) -> None:
    with _lab_with_server() as (lab, server):
        site = lab.site(nat)
        host = site.host()
        before = probe.mapping_of(host, server.address, 5000)
        if CLAIMS[nat].mapping is INDEPENDENT:
            assert probe.mapping_of(host, server.address, 5000) == before
        site.rebind()
        new_port = probe.mapping_of(host, server.address, 5000)
        assert new_port.host == before.host
        assert new_port.port != before.port
        site.rebind(new_address=True)
        new_address = probe.mapping_of(host, server.address, 5000)
        assert new_address.host == site.address != before.host


LISTEN = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", 5000))
print("ready", flush=True)
while True:
    print(sock.recv(99).decode(), flush=True)
"""
SEND = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(sys.argv[1].encode(), (sys.argv[2], 5000))
"""


def test_what_comes_to_a_forgotten_mapping_is_lost() -> None:
    with _lab_with_server() as (lab, server):
        site = lab.site(Nat.FULL_CONE)
        host = site.host()
        probe.mapping_of(host, server.address, 5000)
        with host.popen(sys.executable, "-c", LISTEN, stdout=subprocess.PIPE) as listener:
            try:
                assert listener.stdout is not None
                assert listener.stdout.readline() == "ready\n"
                server.run(sys.executable, "-c", SEND, "before", site.address)
                assert listener.stdout.readline() == "before\n"
                site.rebind()
                server.run(sys.executable, "-c", SEND, "after", site.address)
                site.host().run(sys.executable, "-c", SEND, "inside", host.address)
                assert listener.stdout.readline() == "inside\n"
            finally:
                listener.kill()


def test_a_site_can_lose_udp_and_be_cut_and_restored() -> None:
    with _lab_with_server() as (lab, server):
        sites = [lab.site(nat) for nat in (Nat.PUBLIC, Nat.PORT_RESTRICTED)]
        hosts = [site.host() for site in sites]
        for change, expected in ((Site.cut, [False] * 2), (Site.restore, [True] * 2), (Site.block_udp, [False] * 2)):
            for site in sites:
                change(site)
            assert _at_once(lambda host: _answered(host, server), hosts) == expected


def _answered(host: Host, server: Host) -> bool:
    try:
        probe.mapping_of(host, server.address, 5000)
    except LabError as error:
        if "does not answer" in str(error):
            return False
        raise
    return True


def test_a_public_site_has_no_mapping_to_forget() -> None:
    with Lab() as lab, pytest.raises(LabError, match="no NAT"):
        lab.site(Nat.PUBLIC).rebind()


def test_two_hosts_behind_one_nat_share_its_address_and_reach_each_other_without_it() -> None:
    with _lab_with_server() as (lab, server):
        site = lab.site(Nat.PORT_RESTRICTED)
        one, two = site.host(), site.host()
        assert {probe.mapping_of(host, server.address, 0).host for host in (one, two)} == {site.address}
        with probe.serving(two, two.address, "127.0.0.1"):
            assert probe.mapping_of(one, two.address, 0).host == one.address


def test_hosts_of_two_sites_do_not_reach_each_other_by_their_private_addresses() -> None:
    with Lab() as lab:
        one, two = lab.site(Nat.FULL_CONE).host(), lab.site(Nat.FULL_CONE).host()
        with probe.serving(two, two.address, "127.0.0.1"), pytest.raises(LabError, match="does not answer"):
            probe.mapping_of(one, two.address, 0)


def test_a_site_with_ipv6_has_public_addresses_behind_its_nat() -> None:
    with Lab() as lab:
        one, two = lab.site(Nat.SYMMETRIC, ipv6=True).host(), lab.site(Nat.SYMMETRIC, ipv6=True).host()
        assert two.ipv6 is not None
        with probe.serving(two, two.ipv6, two.address):
            assert probe.mapping_of(one, two.ipv6, 0).host == one.ipv6


def test_a_firewall_filters_ipv6_and_maps_nothing() -> None:
    with Lab() as lab:
        server = lab.server(ipv6=True)
        assert server.ipv6 is not None
        assert server.second_ipv6 is not None
        with probe.serving(server, server.ipv6, server.second_ipv6):
            sites = [
                lab.site(nat, ipv6=True, firewall=firewall)
                for firewall in (False, True)
                for nat in (Nat.SYMMETRIC, Nat.PUBLIC)
            ]
            address = server.ipv6
            measured = _at_once(lambda host: probe.verdict(host, address), [site.host() for site in sites])
    assert measured == [*[CLAIMS[Nat.PUBLIC]] * 2, *[Verdict(INDEPENDENT, BY_PORT, preserves_port=True)] * 2]


def test_a_firewall_filters_ipv4_where_no_nat_does() -> None:
    with _lab_with_server() as (lab, server):
        host = lab.site(Nat.PUBLIC, firewall=True).host()
        assert probe.verdict(host, server.address) == Verdict(INDEPENDENT, BY_PORT, preserves_port=True)


def test_a_site_without_ipv6_has_none() -> None:
    with Lab() as lab:
        host = lab.site(Nat.PORT_RESTRICTED).host()
        assert host.ipv6 is None
        assert host.run("ip", "-6", "addr") == ""
