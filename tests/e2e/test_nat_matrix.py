"""Two commands behind every pair of kernel NATs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from lab.ground import available
from lab.link import Conditions
from lab.matrix import PATIENCE, attempt, pairs
from lab.network import Lab
from lab.site import Host, Site
from lab.story import serving, two_sites
from quice.sim.kinds import CLASSIC, Nat

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]


@pytest.mark.parametrize(("connecting", "answering"), pairs(CLASSIC, served=True), ids=lambda nat: nat.value)
def test_a_pair_that_hole_punching_can_serve_goes_direct(connecting: Nat, answering: Nat) -> None:
    with two_sites(connecting, answering) as (url, one, two):
        result = attempt(url, one, two)
    assert result.error is None
    assert result.status == 0
    assert result.path is not None
    assert result.path["kind"] == "direct"


@pytest.mark.parametrize(("connecting", "answering"), pairs(CLASSIC, served=False), ids=lambda nat: nat.value)
def test_a_pair_that_needs_a_relay_ends_in_a_clear_error_within_15_s(connecting: Nat, answering: Nat) -> None:
    with two_sites(connecting, answering) as (url, one, two):
        result = attempt(url, one, two)
    assert result.path is None
    assert result.error is not None
    assert result.error["kind"] == "no_path"
    assert result.status == 1
    assert result.seconds < PATIENCE


@pytest.mark.parametrize(("connecting", "answering"), pairs(CLASSIC, served=False), ids=lambda nat: nat.value)
def test_a_pair_that_needs_a_relay_has_one(connecting: Nat, answering: Nat) -> None:
    with two_sites(connecting, answering, relay=True) as (url, one, two):
        result = attempt(url, one, two)
    assert result.error is None
    assert result.status == 0
    assert result.path is not None
    assert result.path["kind"] == "relay"


def test_two_symmetric_sites_with_ipv6_go_direct_around_their_nats() -> None:
    with two_sites(Nat.SYMMETRIC, Nat.SYMMETRIC, ipv6=True) as (url, one, two):
        result = attempt(url, one, two)
    assert result.error is None
    assert result.path is not None
    assert result.path["kind"] == "direct"
    assert result.path["remote"].startswith(f"[{two.ipv6}]:")


def test_two_hosts_behind_one_nat_connect_inside_it() -> None:
    with Lab() as lab:
        server = lab.server()
        site = lab.site(Nat.PORT_RESTRICTED)
        one, two = site.host(), site.host()
        with serving(server, server.address) as url:
            result = attempt(url, one, two)
    assert result.error is None
    assert result.path is not None
    assert result.path["kind"] == "lan"
    assert result.path["remote"].startswith(f"{two.address}:")


def test_a_delay_at_each_site_is_in_the_time_that_connecting_takes() -> None:
    """One signalling round trip and one between the peers are the least that it can take: 4 × 25 ms each."""
    conditions = Conditions(delay=0.025)
    with two_sites(Nat.PORT_RESTRICTED, Nat.PORT_RESTRICTED, conditions=conditions) as (url, one, two):
        result = attempt(url, one, two)
    print(f"connected in {1000 * result.connect_seconds:.0f} ms")
    assert result.direct
    assert result.connect_seconds >= 0.2


def test_two_homes_of_one_carrier_meet_by_its_hairpinning() -> None:
    with _homes_of_one_carrier(Nat.HAIRPINNING) as (url, one, two, carrier):
        result = attempt(url, one, two)
    assert result.direct
    assert result.path is not None
    assert result.path["remote"].startswith(f"{carrier.address}:")


def test_two_homes_of_one_carrier_without_hairpinning_have_no_path() -> None:
    with _homes_of_one_carrier(Nat.PORT_RESTRICTED) as (url, one, two, _):
        assert attempt(url, one, two).refused


@contextmanager
def _homes_of_one_carrier(kind: Nat) -> Iterator[tuple[str, Host, Host, Site]]:
    with Lab() as lab:
        server = lab.server()
        carrier = lab.site(kind, carrier=True)
        one, two = (lab.site(Nat.PORT_RESTRICTED, behind=carrier).host() for _ in range(2))
        with serving(server, server.address) as url:
            yield url, one, two, carrier


def test_a_home_behind_a_carrier_connects_to_another() -> None:
    with Lab() as lab:
        server = lab.server()
        carrier = lab.site(Nat.PORT_RESTRICTED_RANDOM, carrier=True)
        one = lab.site(Nat.PORT_RESTRICTED, behind=carrier).host()
        two = lab.site(Nat.PORT_RESTRICTED).host()
        with serving(server, server.address) as url:
            assert attempt(url, one, two).direct
            assert attempt(url, two, one).direct


def test_two_stateful_firewalls_let_ipv6_through_from_both_sides() -> None:
    with Lab() as lab:
        server = lab.server()
        one, two = (lab.site(Nat.SYMMETRIC, ipv6=True, firewall=True).host() for _ in range(2))
        with serving(server, server.address) as url:
            result = attempt(url, one, two)
    assert result.direct
    assert result.path is not None
    assert result.path["remote"].startswith(f"[{two.ipv6}]:")


def test_a_site_without_udp_ends_in_a_clear_error() -> None:
    with Lab() as lab:
        server = lab.server()
        site = lab.site(Nat.PORT_RESTRICTED)
        one, two = site.host(), lab.site(Nat.PUBLIC).host()
        site.block_udp()
        with serving(server, server.address) as url:
            assert attempt(url, one, two).refused
