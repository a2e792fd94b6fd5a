"""A NAT never claims to be what it isn't: each kind is measured by a STUN probe (RFC 5780 §4)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lab import probe
from lab.ground import available
from lab.nat import CLAIMS, Nat
from lab.network import Lab

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]

MAPPED = (sys.executable, "-m", "lab.probe", "mapped")


@pytest.mark.parametrize("nat", Nat)
def test_a_nat_behaves_as_its_name_says(nat: Nat) -> None:
    assert probe.verdict_of(nat) == CLAIMS[nat]


def test_two_hosts_behind_one_nat_share_its_address_and_reach_each_other_without_it() -> None:
    with Lab() as lab:
        server = lab.server()
        site = lab.site(Nat.PORT_RESTRICTED)
        one, two = site.host(), site.host()
        with probe.serving(server, server.address, server.second_address):
            outside = {host.run(*MAPPED, server.address) for host in (one, two)}
        with probe.serving(two, two.address, "127.0.0.1"):
            inside = one.run(*MAPPED, two.address).strip()
    assert len(outside) == 1
    assert inside == one.address


def test_hosts_of_two_sites_do_not_reach_each_other_by_their_private_addresses() -> None:
    with Lab() as lab:
        one, two = lab.site(Nat.FULL_CONE).host(), lab.site(Nat.FULL_CONE).host()
        with probe.serving(two, two.address, "127.0.0.1"):
            asked = one.popen(*MAPPED, two.address, stderr=subprocess.PIPE)
            _, said = asked.communicate()
    assert asked.returncode == 1
    assert "does not answer" in said


def test_a_site_with_ipv6_has_public_addresses_behind_its_nat() -> None:
    with Lab() as lab:
        one, two = lab.site(Nat.SYMMETRIC, ipv6=True).host(), lab.site(Nat.SYMMETRIC, ipv6=True).host()
        assert two.ipv6 is not None
        with probe.serving(two, two.ipv6, two.address):
            assert one.run(*MAPPED, two.ipv6).strip() == one.ipv6


def test_a_site_without_ipv6_has_none() -> None:
    with Lab() as lab:
        host = lab.site(Nat.PORT_RESTRICTED).host()
        assert host.ipv6 is None
        assert host.run("ip", "-6", "addr") == ""
