"""Lite agents, with full ones and among themselves (RFC 8445 §2.5, §6.1.1, §7.3.2, §8.2)."""

import msgspec
import pytest

from quice.ice import Failed, Nominating, PairState, PairValid, Role, RoleChanged, Selected
from quice.ice.agent import PATIENCE
from quice.ice.checklist import CheckListState
from quice.ice.consent import TR
from quice.stun.attributes import XorMappedAddress
from quice.stun.message import Kind
from tests.ice.network import Host, Nat, Network, assert_agreed, port_restricted
from tests.ice.scripted import BASE, PWD, STRANGER, UFRAG, Scripted, remote

LATENCY = 0.05
RTT = 2 * LATENCY


def lite(role: Role = Role.CONTROLLED, *, remotes: int = 1) -> Scripted:
    """A lite agent whose peer is full."""
    return Scripted(role, remotes=remotes, lite=True)


def pairs_of_lite_agents(first: Role = Role.CONTROLLING) -> tuple[Network, Host, Host]:
    network = Network(LATENCY)
    one = network.host(first, ("192.0.2.1", "2001:db8::1"), lite=True)
    two = network.host(first.opposite, ("192.0.2.2", "2001:db8::2"), lite=True)
    return network, one, two


def test_rfc8445_7_a_lite_agent_sends_no_check() -> None:
    peer = lite(remotes=5)
    peer.check(remote(1).address)
    assert [each for each in peer.until(PATIENCE - 1) if each.message.kind is Kind.REQUEST] == []


def test_rfc8445_7_3_a_lite_agent_answers_checks() -> None:
    peer = lite()
    (answer,) = peer.check(STRANGER)
    assert answer.message.get(XorMappedAddress) == XorMappedAddress(STRANGER)
    assert (answer.transmit.source, answer.to) == (BASE, STRANGER)
    assert peer.events() == []


@pytest.mark.parametrize("source", [remote(1).address, STRANGER])
def test_rfc8445_7_3_2_a_lite_agent_selects_what_is_nominated_without_a_check_of_its_own(source: object) -> None:
    peer = lite()
    peer.check(source, nominate=True)  # type: ignore[arg-type]
    (selected,) = peer.events()
    assert isinstance(selected, Selected)
    assert selected.pair.remote.address == source
    assert selected.pair.state is PairState.SUCCEEDED
    assert peer.agent.report.state is CheckListState.COMPLETED


def test_rfc8445_7_3_2_a_pair_that_waits_for_another_of_its_foundation_can_be_nominated() -> None:
    peer = lite(remotes=0)
    for number in (1, 2):
        peer.agent.add_remote_candidate(msgspec.structs.replace(remote(number), foundation="same"), peer.now)
    assert peer.state(2) is PairState.FROZEN
    peer.check(remote(2).address, nominate=True)
    assert peer.agent.selected is not None
    assert peer.agent.selected.remote.address == remote(2).address


def test_rfc8445_7_3_2_a_nomination_before_the_peers_password_counts_once_it_is_there() -> None:
    peer = Scripted(Role.CONTROLLED, lite=True, credentials=False)
    peer.check(remote(1).address, nominate=True)
    assert peer.agent.selected is None
    peer.learn_credentials()
    assert peer.agent.selected is not None


def test_a_lite_agent_keeps_to_the_first_nomination() -> None:
    peer = lite(remotes=2)
    for number in (2, 1):
        peer.check(remote(number).address, nominate=True)
    assert peer.agent.selected is not None
    assert peer.agent.selected.remote == remote(2)


def test_rfc8445_6_1_1_an_initiating_lite_agent_is_controlled_by_a_full_peer() -> None:
    peer = lite(Role.CONTROLLING)
    assert peer.events() == [RoleChanged(Role.CONTROLLED)]


def test_rfc8445_6_1_1_a_responding_full_agent_controls_a_lite_peer() -> None:
    peer = Scripted(Role.CONTROLLED, credentials=False)
    peer.agent.set_remote_credentials(UFRAG, PWD, peer.now, lite=True)
    assert peer.events() == [RoleChanged(Role.CONTROLLING)]
    peer.answer(peer.first_check())
    assert peer.first_check().nominates


def test_rfc8445_11_a_lite_agent_keeps_its_selected_pair_alive() -> None:
    peer = lite()
    peer.check(remote(1).address, nominate=True)
    sent = peer.until(3.5 * TR)
    assert [(each.message.kind, each.time, each.to) for each in sent] == [
        (Kind.INDICATION, pytest.approx(n * TR), remote(1).address) for n in (1, 2, 3)
    ]


def test_a_lite_agent_that_nobody_nominates_for_fails() -> None:
    peer = lite()
    peer.until(PATIENCE)
    (failed,) = peer.events()
    assert isinstance(failed, Failed)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("behind", [None, "203.0.113.1"])
def test_a_full_and_a_lite_agent_agree_whoever_begins(role: Role, behind: str | None) -> None:
    network = Network(LATENCY)
    full = network.host(role, "10.1.0.1", Nat(behind, port_restricted) if behind else None)
    public = network.host(role.opposite, "192.0.2.2", lite=True)
    network.introduce(full, public)
    network.drive()
    assert_agreed(full, public)
    assert full.agent.role is Role.CONTROLLING
    assert public.agent.role is Role.CONTROLLED
    assert public.checks() == []
    assert full.time_of(PairValid) == pytest.approx(RTT)
    assert public.time_of(Selected) == pytest.approx(full.time_of(Nominating) + LATENCY, abs=0.01)


@pytest.mark.parametrize("role", list(Role))
def test_rfc8445_6_1_1_two_lite_agents_select_without_a_check(role: Role) -> None:
    network, one, two = pairs_of_lite_agents(role)
    network.introduce(one, two)
    network.drive()
    assert_agreed(one, two)
    assert network.packets == []
    assert {one.agent.role, two.agent.role} == set(Role)


def test_rfc8445_8_2_two_lite_agents_wait_until_all_candidates_are_known() -> None:
    network, one, two = pairs_of_lite_agents()
    network.tell_credentials(one, two)
    one.agent.add_remote_candidate(two.candidates[1], network.now)
    assert one.agent.selected is None
    one.agent.add_remote_candidate(two.candidates[0], network.now)
    one.agent.end_of_remote_candidates(network.now)
    assert one.selected.remote.address == two.candidates[0].address


def test_rfc8445_8_2_two_lite_agents_without_a_common_family_fail() -> None:
    network = Network(LATENCY)
    one = network.host(Role.CONTROLLING, "192.0.2.1", lite=True)
    two = network.host(Role.CONTROLLED, "2001:db8::2", lite=True)
    network.introduce(one, two)
    network.drive()
    for host in (one, two):
        assert host.said(Failed)[0].reason.startswith("no candidate of ours has a counterpart")
