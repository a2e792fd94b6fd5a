"""ICE restarts (RFC 8445 §9), seen from both sides and by an agent whose peer is the test."""

import pytest

from quice.ice import Failed, Lost, PairValid, Restarted, Role, Selected
from quice.ice.agent import FREE_AFTER, PATIENCE
from quice.ice.checklist import CheckListState
from quice.stun.message import Kind
from quice.wire import Address
from tests.ice.network import (
    SERVER,
    Host,
    Nat,
    Network,
    assert_agreed,
    host_candidate,
    port_restricted,
    reflexive_candidate,
)
from tests.ice.scripted import BASE, STRANGER, Scripted, Sent, remote

LATENCY = 0.05
NEW_UFRAG, NEW_PWD = "again", "the-peers-second-password-of-128"


def connected(role: Role = Role.CONTROLLING, *, remotes: int = 1, renomination: bool = False) -> Scripted:
    """An agent with a selected pair."""
    peer = Scripted(role, remotes=remotes, renomination=renomination)
    peer.answer(peer.first_check())
    if role is Role.CONTROLLING:
        peer.answer(peer.first_check())
    else:
        peer.check(remote(1).address, nominate=True)
    assert peer.agent.selected is not None
    peer.events()
    peer.sent()
    return peer


def answer(peer: Scripted, check: Sent) -> None:
    assert peer.answer(check, key=NEW_PWD)


def met(*, renomination: bool = False) -> tuple[Network, Host, Host]:
    """Two agents behind NATs that have selected a pair."""
    network = Network(LATENCY, renomination=renomination)
    one = network.host(Role.CONTROLLING, "10.1.0.1", Nat("198.51.100.1", port_restricted))
    two = network.host(Role.CONTROLLED, "10.2.0.1", Nat("203.0.113.1", port_restricted))
    network.introduce(one, two)
    network.drive()
    assert_agreed(one, two)
    return network, one, two


def test_rfc8445_9_a_restart_has_other_credentials_and_no_memory_of_the_peer() -> None:
    peer = connected(remotes=3)
    before = peer.agent.credentials
    peer.agent.restart(peer.now)
    after = peer.agent.credentials
    assert after.ufrag != before.ufrag
    assert after.pwd != before.pwd
    assert peer.events() == [Restarted(1)]
    report = peer.agent.report
    assert (report.generation, report.pairs, report.remote_candidates) == (1, (), ())
    assert report.local_candidates == (peer.local,)
    assert report.state is CheckListState.RUNNING


@pytest.mark.parametrize("role", list(Role))
def test_rfc8445_9_roles_are_kept(role: Role) -> None:
    peer = connected(role)
    peer.agent.restart(peer.now)
    assert peer.agent.role is role


def test_rfc8445_12_1_the_selected_pair_stays_in_use_until_there_is_a_new_one() -> None:
    peer = connected(remotes=2)
    old = peer.agent.selected
    peer.agent.restart(peer.now)
    assert peer.agent.selected is old
    peer.agent.set_remote_credentials(NEW_UFRAG, NEW_PWD, peer.now)
    peer.agent.add_remote_candidate(remote(2), peer.now)
    answer(peer, peer.first_check())
    assert peer.agent.selected is old
    answer(peer, peer.first_check())
    assert peer.agent.selected is not old
    assert peer.agent.report.selected is not None
    assert peer.agent.report.selected.remote == remote(2)


def test_rfc7675_5_1_consent_goes_on_for_the_old_pair_during_a_restart() -> None:
    peer = connected()
    old = peer.agent.credentials
    peer.agent.restart(peer.now)
    sent = [each for each in peer.until(9.0) if each.message.kind is Kind.REQUEST]
    assert len(sent) == 1
    assert sent[0].to == remote(1).address
    assert str(sent[0].message.attributes[0]).find(old.ufrag) > 0
    assert peer.answer(sent[0])
    assert [type(event) for event in peer.events()] == [Restarted]


def test_the_peers_consent_checks_of_the_old_pair_are_answered_during_a_restart() -> None:
    peer = connected()
    request = peer.request(number=77)
    key = peer.agent.credentials.key
    peer.agent.restart(peer.now)
    assert peer.receive(request, remote(1).address)
    (reply,) = peer.sent()
    assert reply.message.kind is Kind.SUCCESS
    assert reply.message.verify(key)
    assert peer.agent.report.pairs == ()


def test_late_packets_of_the_old_generation_change_nothing() -> None:
    peer = Scripted(remotes=3)
    checks = [peer.first_check() for _ in range(3)]
    nomination = peer.request(number=5, nominate=True)
    peer.agent.restart(peer.now)
    peer.agent.set_remote_credentials(NEW_UFRAG, NEW_PWD, peer.now)
    before = peer.agent.report
    for check in checks:
        assert not peer.answer(check)
        assert not peer.answer(check, code=487)
    assert not peer.receive(nomination, STRANGER)
    assert peer.agent.report == before


def test_rfc8838_candidates_of_another_generation_are_ignored() -> None:
    peer = connected()
    peer.agent.restart(peer.now)
    peer.agent.set_remote_credentials(NEW_UFRAG, NEW_PWD, peer.now)
    peer.agent.add_remote_candidate(remote(1), peer.now, "peer")
    peer.agent.end_of_remote_candidates(peer.now, "peer")
    assert peer.agent.report.remote_candidates == ()
    peer.agent.add_remote_candidate(remote(1), peer.now, NEW_UFRAG)
    assert peer.agent.report.remote_candidates == (remote(1),)


def test_rfc8445_9_other_credentials_of_the_peers_restart_this_agent_too() -> None:
    peer = connected()
    before = peer.agent.credentials
    peer.agent.set_remote_credentials(NEW_UFRAG, NEW_PWD, peer.now)
    assert peer.events() == [Restarted(1)]
    assert peer.agent.credentials != before
    peer.agent.add_remote_candidate(remote(1), peer.now)
    answer(peer, peer.first_check())


def test_the_same_credentials_again_are_no_restart() -> None:
    peer = connected()
    peer.learn_credentials()
    assert peer.events() == []
    assert peer.agent.generation == 0


def test_a_restart_can_follow_a_failure() -> None:
    peer = Scripted()
    peer.until(PATIENCE)
    assert isinstance(peer.events()[0], Failed)
    peer.agent.restart(peer.now)
    peer.agent.set_remote_credentials(NEW_UFRAG, NEW_PWD, peer.now)
    peer.agent.add_remote_candidate(remote(1), peer.now)
    answer(peer, peer.first_check())
    answer(peer, peer.first_check())
    assert peer.agent.selected is not None


def test_a_restart_that_fails_leaves_the_old_pair_in_use() -> None:
    peer = connected()
    old = peer.agent.selected
    peer.agent.restart(peer.now)
    peer.agent.set_remote_credentials(NEW_UFRAG, NEW_PWD, peer.now)
    while not any(isinstance(event, Failed) for event in peer.events()):
        for sent in peer.until(peer.now + 1):
            if sent.to == remote(1).address:
                peer.answer(sent)
    assert peer.agent.selected is old
    assert any(sent.message.kind is Kind.REQUEST for sent in peer.until(peer.now + 7))


def test_an_old_pair_that_is_lost_during_a_restart_is_gone() -> None:
    peer = connected()
    old = peer.agent.selected
    assert old is not None
    peer.agent.restart(peer.now)
    peer.events()
    peer.agent.pair_lost(old, peer.now)
    assert peer.events() == [Lost(old, None)]
    assert peer.agent.selected is None


def test_two_restarts_in_a_row_keep_the_pair_of_the_first_generation() -> None:
    peer = connected()
    old = peer.agent.selected
    for _ in range(3):
        peer.agent.restart(peer.now)
    assert peer.agent.selected is old
    assert peer.agent.generation == 3


def test_nothing_of_the_old_generation_is_kept_when_the_new_one_has_its_pair() -> None:
    peer = connected()
    request = peer.request(number=99)
    peer.agent.restart(peer.now)
    peer.agent.set_remote_credentials(NEW_UFRAG, NEW_PWD, peer.now)
    peer.agent.add_remote_candidate(remote(2), peer.now)
    answer(peer, peer.first_check())
    answer(peer, peer.first_check())
    peer.events()
    sent = peer.until(peer.now + 2 * FREE_AFTER)
    assert {each.to for each in sent} <= {remote(2).address}
    assert not peer.receive(request, remote(1).address)
    assert peer.sent() == []


def test_a_closed_agent_does_not_restart() -> None:
    peer = connected()
    peer.agent.close()
    peer.agent.restart(peer.now)
    peer.agent.set_remote_credentials(NEW_UFRAG, NEW_PWD, peer.now)
    assert peer.events() == []
    assert peer.agent.timeout() is None


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("renomination", [False, True])
def test_two_agents_restart_and_agree_again(first: int, renomination: bool) -> None:
    network, one, two = met(renomination=renomination)
    early, late = ((one, two), (two, one))[first]
    early.agent.restart(network.now)
    network.advance(0.2)
    network.tell(late, early)
    network.advance(0.2)
    network.tell(early, late)
    network.drive()
    assert_agreed(one, two)
    for host in (one, two):
        assert host.agent.generation == 1
        assert len(host.said(Restarted)) == 1
        assert len(host.said(Selected)) == 2
        assert host.said(Lost) == []


def test_an_agent_that_moves_to_another_network_restarts_and_is_found_there() -> None:
    network, one, two = met(renomination=True)
    here = Address("10.3.0.1", 5000)
    one.agent.remove_local_base(one.addresses[0], network.now)
    one.addresses = (here,)
    one.nat = Nat("192.0.2.99", port_restricted)
    one.candidates = [host_candidate(here), reflexive_candidate(one.nat.outbound(here, SERVER), here)]
    for candidate in one.candidates:
        one.agent.add_local_candidate(candidate, network.now)
    one.agent.restart(network.now)
    network.tell(two, one)
    network.tell(one, two)
    network.drive()
    assert_agreed(one, two)
    assert two.selected.remote.address.host == "192.0.2.99"


def test_an_address_that_is_gone_takes_its_pairs_along() -> None:
    peer = connected(remotes=3)
    selected = peer.agent.selected
    assert selected is not None
    peer.agent.remove_local_base(BASE, peer.now)
    report = peer.agent.report
    assert (report.local_candidates, report.pairs, report.selected) == ((), (), None)
    assert any(isinstance(event, Lost) and event.pair is selected for event in peer.events())
    assert [each for each in peer.until(5.0) if each.message.kind is Kind.REQUEST] == []


def test_an_agent_that_restarts_while_its_peer_is_silent_says_so_once() -> None:
    peer = connected()
    peer.agent.restart(peer.now)
    peer.until(peer.now + PATIENCE)
    assert [type(event) for event in peer.events()] == [Restarted, Failed]
    assert PairValid not in [type(event) for event in peer.events()]
