"""Two commands behind every pair of kernel NATs."""

from __future__ import annotations

import pytest

from lab.ground import available
from lab.link import Conditions
from lab.matrix import DIRECT, IMPOSSIBLE, PATIENCE, attempt
from lab.nat import Nat
from lab.network import Lab
from lab.story import serving, two_sites

UNAVAILABLE = available()
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]


@pytest.mark.parametrize(("connecting", "answering"), DIRECT, ids=lambda nat: nat.value)
def test_a_pair_that_hole_punching_can_serve_goes_direct(connecting: Nat, answering: Nat) -> None:
    with two_sites(connecting, answering) as (url, one, two):
        result = attempt(url, one, two)
    assert result.error is None
    assert result.status == 0
    assert result.path is not None
    assert result.path["kind"] == "direct"


@pytest.mark.parametrize(("connecting", "answering"), IMPOSSIBLE, ids=lambda nat: nat.value)
def test_a_pair_that_needs_a_relay_ends_in_a_clear_error_within_15_s(connecting: Nat, answering: Nat) -> None:
    with two_sites(connecting, answering) as (url, one, two):
        result = attempt(url, one, two)
    assert result.path is None
    assert result.error is not None
    assert result.error["kind"] == "no_path"
    assert result.status == 1
    assert result.seconds < PATIENCE


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
