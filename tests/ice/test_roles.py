"""Conflicts of roles, seen by one agent whose peer is the test (RFC 8445 §7.2.5.1, §7.3.1.1)."""

import pytest

from quice.ice import Nominating, PairState, Role, RoleChanged
from quice.stun.attributes import IceControlled, IceControlling
from quice.stun.message import Kind
from tests.ice.scripted import TIE_BREAKER, Scripted, Sent, remote

OTHER = {Role.CONTROLLING: Role.CONTROLLED, Role.CONTROLLED: Role.CONTROLLING}


def claimed(check: Sent) -> IceControlling | IceControlled | None:
    return check.message.get(IceControlling) or check.message.get(IceControlled)


@pytest.mark.parametrize(
    ("role", "theirs"),
    [
        (Role.CONTROLLING, TIE_BREAKER - 1),
        (Role.CONTROLLING, TIE_BREAKER),
        (Role.CONTROLLED, TIE_BREAKER + 1),
    ],
)
def test_rfc8445_7_3_1_1_a_peer_that_loses_the_conflict_is_refused_with_487(role: Role, theirs: int) -> None:
    peer = Scripted(role)
    (refusal,) = peer.check(remote(1).address, role=role, tie_breaker=theirs)
    assert refusal.message.kind is Kind.ERROR
    assert refusal.message.error.code == 487
    assert refusal.message.verify(peer.agent.credentials.key)
    assert peer.agent.role is role
    assert peer.events() == []


@pytest.mark.parametrize(
    ("role", "theirs"),
    [
        (Role.CONTROLLING, TIE_BREAKER + 1),
        (Role.CONTROLLED, TIE_BREAKER - 1),
        (Role.CONTROLLED, TIE_BREAKER),
    ],
)
def test_rfc8445_7_3_1_1_an_agent_that_loses_the_conflict_switches_and_answers(role: Role, theirs: int) -> None:
    peer = Scripted(role)
    (answer,) = peer.check(remote(1).address, role=role, tie_breaker=theirs)
    assert answer.message.kind is Kind.SUCCESS
    assert peer.events() == [RoleChanged(OTHER[role])]
    assert isinstance(claimed(peer.first_check()), IceControlling) is (role is Role.CONTROLLED)


def test_rfc8445_7_3_1_1_a_refused_check_reveals_no_candidate_and_triggers_nothing() -> None:
    peer = Scripted(remotes=0)
    peer.check(remote(1).address, role=Role.CONTROLLING, tie_breaker=0)
    assert peer.agent.report.remote_candidates == ()
    assert peer.until(1.0) == []


@pytest.mark.parametrize("role", list(Role))
def test_rfc8445_7_2_5_1_a_refused_agent_switches_and_checks_the_pair_again(role: Role) -> None:
    peer = Scripted(role, remotes=3)
    refused = peer.first_check()
    peer.answer(refused, code=487)
    assert peer.events() == [RoleChanged(OTHER[role])]
    assert peer.state() is PairState.WAITING
    again = peer.first_check()
    assert again.to == refused.to
    assert again.message.transaction_id != refused.message.transaction_id
    assert type(claimed(again)) is not type(claimed(refused))


def test_rfc8445_7_2_5_1_a_refused_agent_takes_a_new_tie_breaker() -> None:
    peer = Scripted()
    check = peer.first_check()
    assert claimed(check) == IceControlling(TIE_BREAKER)
    peer.answer(check, code=487)
    new = claimed(peer.first_check())
    assert isinstance(new, IceControlled)
    assert new.value != TIE_BREAKER


def test_a_second_refusal_of_the_role_that_was_given_up_does_not_switch_back() -> None:
    peer = Scripted(remotes=2)
    first, second = peer.first_check(), peer.first_check()
    peer.answer(first, code=487)
    peer.answer(second, code=487)
    assert peer.events() == [RoleChanged(Role.CONTROLLED)]
    assert [isinstance(claimed(peer.first_check()), IceControlled) for _ in range(2)] == [True, True]


def test_a_refusal_of_a_check_that_gave_way_does_not_disturb_the_one_in_the_new_role() -> None:
    peer = Scripted()
    old = peer.first_check()
    peer.check(remote(1).address, role=Role.CONTROLLING, tie_breaker=TIE_BREAKER + 1)
    new = peer.first_check()
    assert isinstance(claimed(new), IceControlled)
    peer.answer(old, code=487)
    assert peer.agent.role is Role.CONTROLLED
    peer.answer(new)
    assert peer.state() is PairState.SUCCEEDED


def test_a_refusal_without_the_password_switches_nothing() -> None:
    peer = Scripted()
    peer.answer(peer.first_check(), code=487, key="guessed")
    assert peer.agent.role is Role.CONTROLLING
    assert peer.state() is PairState.IN_PROGRESS


def test_an_agent_that_comes_to_control_nominates_what_works_already() -> None:
    peer = Scripted(Role.CONTROLLED)
    peer.answer(peer.first_check())
    peer.events()
    peer.check(remote(1).address, role=Role.CONTROLLED, tie_breaker=0)
    changed, nominating = peer.events()
    assert changed == RoleChanged(Role.CONTROLLING)
    assert isinstance(nominating, Nominating)


def test_an_agent_that_stops_controlling_leaves_its_nomination_to_the_peer() -> None:
    peer = Scripted()
    peer.answer(peer.first_check())
    nomination = peer.first_check() if not (sent := peer.sent()) else sent[0]
    assert nomination.nominates
    peer.answer(nomination, code=487)
    again = peer.first_check()
    assert not again.nominates
    peer.answer(again)
    assert peer.agent.selected is None
    peer.check(remote(1).address, nominate=True)
    assert peer.agent.selected is not None


def test_an_agent_that_is_refused_every_time_gives_up_in_the_end() -> None:
    peer = Scripted()
    for _ in range(5000):
        due = peer.agent.timeout()
        if due is None:
            break
        peer.now = max(peer.now, due)
        peer.agent.handle_timeout(peer.now)
        for sent in peer.sent():
            peer.answer(sent, code=487)
    assert peer.agent.timeout() is None
    assert peer.now <= 10.1
