"""Choosing a pair, giving up, and closing, seen by one agent whose peer is the test (RFC 8445 §8)."""

import pytest

from quice.ice import Failed, Nominating, PairState, PairValid, Role, Selected
from quice.ice.agent import PATIENCE
from quice.ice.checklist import CheckListState
from quice.ice.controlling import NOMINATION_PATIENCE
from quice.ice.pacing import DEFAULT_TA
from quice.stun.attributes import UseCandidate
from quice.stun.message import Kind
from quice.wire import Address
from tests.ice.scripted import STRANGER, Scripted, Sent, remote


def nominated(peer: Scripted, *, remotes: int = 1) -> Sent:
    """Let the best pair become valid; returns the nominating check."""
    peer.answer(peer.first_check())
    nomination = peer.first_check()
    assert nomination.nominates
    return nomination


def test_rfc8445_8_1_1_the_best_pair_of_all_is_nominated_as_soon_as_it_is_valid() -> None:
    peer = Scripted(remotes=3)
    check = peer.first_check()
    peer.answer(check)
    nomination = peer.first_check()
    assert nomination.message.get(UseCandidate) is not None
    assert nomination.to == check.to
    valid, nominating = peer.events()
    assert isinstance(valid, PairValid)
    assert isinstance(nominating, Nominating)
    assert peer.agent.selected is None
    peer.answer(nomination)
    (selected,) = peer.events()
    assert isinstance(selected, Selected)
    assert peer.agent.selected is selected.pair
    assert selected.pair.nominated


def test_another_valid_pair_is_nominated_after_a_moment() -> None:
    peer = Scripted(remotes=2)
    peer.first_check()
    second = peer.first_check()
    peer.answer(second)
    peer.events()
    sent = peer.until(second.time + NOMINATION_PATIENCE - 0.001)
    assert not any(each.nominates for each in sent)
    (nomination,) = [each for each in peer.until(second.time + NOMINATION_PATIENCE) if each.nominates]
    assert nomination.to == remote(2).address


def test_a_better_pair_that_becomes_valid_within_the_moment_is_nominated_at_once() -> None:
    peer = Scripted(remotes=2)
    first, second = peer.first_check(), peer.first_check()
    peer.answer(second)
    assert peer.sent() == []
    peer.until(0.03)
    peer.answer(first)
    nomination = peer.first_check()
    assert nomination.to == remote(1).address
    assert not any(each.to == remote(2).address for each in peer.until(5.0))


def test_rfc8445_8_1_1_one_pair_is_nominated_even_if_a_better_one_becomes_valid_later() -> None:
    peer = Scripted(remotes=2)
    first, second = peer.first_check(), peer.first_check()
    peer.answer(second)
    (nomination,) = [each for each in peer.until(0.09) if each.nominates]
    peer.answer(first)
    peer.answer(nomination)
    assert [pair.remote for pair in peer.agent.report.pairs if pair.nominated] == [remote(2)]
    assert sum(isinstance(event, Nominating) for event in peer.events()) == 1


def test_rfc8445_8_1_1_a_selected_pair_ends_all_checks() -> None:
    peer = Scripted(remotes=5)
    peer.answer(nominated(peer))
    assert peer.agent.report.state is CheckListState.COMPLETED
    assert {each.to for each in peer.until(20.0)} == {remote(1).address}
    assert [pair.checks_sent for pair in peer.agent.report.pairs] == [2, 0, 0, 0, 0]


@pytest.mark.parametrize("order", [(1, 2), (2, 1)], ids=["the best first", "the best last"])
def test_rfc8445_8_1_1_of_pairs_that_are_all_nominated_the_best_is_selected(order: tuple[int, int]) -> None:
    peer = Scripted(Role.CONTROLLED, remotes=2)
    first, second = peer.first_check(), peer.first_check()
    peer.answer(first)
    peer.answer(second)
    for number in order:
        assert [each.message.kind for each in peer.check(remote(number).address, nominate=True)] == [Kind.SUCCESS]
    assert peer.agent.selected is not None
    assert peer.agent.selected.remote == remote(1)
    assert [pair.remote for pair in peer.agent.report.pairs if pair.nominated] == [remote(1)]


def test_rfc8445_8_1_1_a_better_nominated_pair_is_selected_though_our_check_of_it_is_answered_late() -> None:
    peer = Scripted(Role.CONTROLLED, remotes=2)
    first, second = peer.first_check(), peer.first_check()
    peer.check(remote(1).address, nominate=True)
    peer.answer(second)
    peer.check(remote(2).address, nominate=True)
    assert peer.agent.selected is not None
    assert peer.agent.selected.remote == remote(2)
    peer.answer(first)
    assert peer.agent.selected.remote == remote(1)


def test_checks_are_answered_after_the_selection_and_select_nothing_else() -> None:
    peer = Scripted(Role.CONTROLLED, remotes=2)
    first, second = peer.first_check(), peer.first_check()
    peer.answer(first)
    peer.answer(second)
    peer.check(remote(2).address, nominate=True)
    peer.events()
    assert [each.message.kind for each in peer.check(remote(1).address)] == [Kind.SUCCESS]
    assert peer.events() == []
    assert peer.agent.report.selected is not None
    assert peer.agent.report.selected.remote == remote(2)


def test_rfc8445_7_3_1_5_a_nomination_selects_a_pair_that_is_valid() -> None:
    peer = Scripted(Role.CONTROLLED)
    peer.answer(peer.first_check())
    peer.events()
    peer.check(remote(1).address, nominate=True)
    (selected,) = peer.events()
    assert isinstance(selected, Selected)


def test_rfc8445_7_3_1_5_a_nomination_waits_for_our_own_check_of_the_pair() -> None:
    peer = Scripted(Role.CONTROLLED)
    check = peer.first_check()
    peer.check(remote(1).address, nominate=True)
    assert peer.events() == []
    peer.answer(check)
    valid, selected = peer.events()
    assert isinstance(valid, PairValid)
    assert isinstance(selected, Selected)


def test_rfc8445_7_3_1_5_a_nomination_is_no_worth_when_our_own_check_fails() -> None:
    peer = Scripted(Role.CONTROLLED)
    check = peer.first_check()
    peer.check(remote(1).address, nominate=True)
    peer.answer(check, source=STRANGER)
    assert peer.agent.selected is None
    assert peer.state() is PairState.FAILED


def test_a_controlling_agent_does_not_let_its_peer_nominate() -> None:
    peer = Scripted(remotes=2)
    peer.first_check()
    second = peer.first_check()
    peer.answer(second)
    peer.check(remote(2).address, nominate=True)
    assert peer.agent.selected is None


def test_an_answer_from_before_the_nomination_does_not_stand_for_its_own() -> None:
    peer = Scripted(remotes=1)
    old = peer.first_check()
    peer.check(remote(1).address)
    newer = peer.first_check()
    peer.answer(old)
    nomination = peer.first_check()
    peer.answer(newer)
    assert peer.agent.selected is None
    peer.answer(nomination)
    assert peer.agent.selected is not None


def test_a_triggered_check_of_the_nominated_pair_nominates_too() -> None:
    peer = Scripted()
    nominated(peer)
    peer.check(remote(1).address)
    assert peer.first_check().nominates


@pytest.mark.parametrize("answer", [{"code": 400}, {"source": STRANGER}, {"mapped": None}])
def test_when_a_nomination_is_refused_the_next_valid_pair_is_nominated(answer: dict[str, object]) -> None:
    peer = Scripted(remotes=2)
    first, second = peer.first_check(), peer.first_check()
    peer.answer(second)
    peer.answer(first)
    nomination = peer.first_check()
    assert nomination.to == remote(1).address
    peer.answer(nomination, **answer)  # type: ignore[arg-type]
    sent = [each for each in peer.sent() + peer.until(peer.now + NOMINATION_PATIENCE) if each.nominates]
    assert [each.to for each in sent] == [remote(2).address]
    peer.answer(sent[0])
    assert peer.agent.report.selected is not None


def test_when_a_nomination_is_never_answered_the_next_valid_pair_is_nominated() -> None:
    peer = Scripted(remotes=2, patience=60.0)
    first, second = peer.first_check(), peer.first_check()
    peer.answer(second)
    peer.answer(first)
    sent = [each for each in peer.until(40.0) if each.nominates]
    assert {each.to for each in sent if each.time < 39.5} == {remote(1).address}
    assert sent[-1].to == remote(2).address
    peer.answer(sent[-1])
    assert peer.agent.report.selected is not None
    assert peer.agent.report.selected.remote == remote(2)


def test_rfc8863_4_an_agent_whose_pairs_have_all_failed_still_waits_for_its_peer() -> None:
    peer = Scripted()
    peer.agent.end_of_local_candidates(peer.now)
    peer.agent.end_of_remote_candidates(peer.now)
    peer.answer(peer.first_check(), code=400)
    peer.until(5.0)
    assert peer.events() == []
    peer.check(STRANGER)
    check = peer.first_check()
    peer.answer(check)
    peer.until(5.1)
    assert any(isinstance(event, Nominating) for event in peer.events())


@pytest.mark.parametrize("role", list(Role))
def test_an_agent_whom_nobody_answers_fails_when_patience_ends(role: Role) -> None:
    peer = Scripted(role, remotes=3)
    peer.agent.end_of_local_candidates(peer.now)
    peer.agent.end_of_remote_candidates(peer.now)
    peer.until(PATIENCE - 0.001)
    assert peer.events() == []
    peer.until(PATIENCE)
    assert peer.events() == [Failed("none of 3 candidate pairs let a check through and its answer back")]
    assert peer.agent.report.state is CheckListState.FAILED
    assert peer.agent.timeout() is None


def test_rfc8863_4_patience_begins_when_the_password_comes() -> None:
    peer = Scripted(credentials=False)
    peer.until(PATIENCE - 1)
    peer.learn_credentials()
    peer.until(PATIENCE + 5)
    assert peer.events() == []
    peer.until(2 * PATIENCE - 1)
    (failed,) = peer.events()
    assert isinstance(failed, Failed)
    assert failed.reason.endswith("not all candidates are known")


def test_a_failure_without_a_word_from_the_peer_says_so() -> None:
    peer = Scripted(credentials=False)
    peer.until(PATIENCE)
    assert peer.events() == [Failed("the peer's candidates never came")]


def test_a_failure_without_any_candidate_of_the_peers_says_so() -> None:
    peer = Scripted(remotes=0)
    peer.until(PATIENCE)
    assert peer.events() == [Failed("the peer has named no candidate that this side may try")]


def test_a_controlled_agent_whose_peer_never_nominates_fails_and_says_so() -> None:
    peer = Scripted(Role.CONTROLLED)
    peer.until(1.5)
    peer.check(remote(1).address)
    peer.answer(peer.first_check())
    peer.events()
    valid_at = peer.now
    peer.until(valid_at + PATIENCE - 0.001)
    assert peer.events() == []
    peer.until(valid_at + PATIENCE)
    assert peer.events() == [Failed("a candidate pair works, but the peer, whose choice it is, never chose one")]


def test_a_pair_that_becomes_valid_at_the_last_moment_is_still_nominated() -> None:
    peer = Scripted(remotes=2)
    peer.until(PATIENCE - 2 * DEFAULT_TA)
    peer.check(remote(2).address)
    peer.answer(peer.first_check())
    (nomination,) = [each for each in peer.until(PATIENCE + 0.05) if each.nominates]
    peer.answer(nomination)
    assert peer.agent.selected is not None


def test_a_failed_agent_neither_answers_nor_begins_again() -> None:
    peer = Scripted()
    peer.until(PATIENCE)
    peer.events()
    assert peer.check(remote(1).address, nominate=True) == []
    peer.agent.add_remote_candidate(remote(2), peer.now)
    assert peer.until(3 * PATIENCE) == []
    assert peer.events() == []


def close_at_start(peer: Scripted) -> None:
    pass


def close_in_check(peer: Scripted) -> None:
    peer.first_check()


def close_before_choice(peer: Scripted) -> None:
    peer.first_check()
    peer.answer(peer.first_check())


def close_in_nomination(peer: Scripted) -> None:
    peer.answer(peer.first_check())


def close_after_selection(peer: Scripted) -> None:
    peer.answer(nominated(peer))


def close_after_failure(peer: Scripted) -> None:
    peer.until(PATIENCE)


MOMENTS = [
    close_at_start,
    close_in_check,
    close_before_choice,
    close_in_nomination,
    close_after_selection,
    close_after_failure,
]


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_closed_agent_sends_says_and_wants_nothing(moment: object) -> None:
    peer = Scripted(remotes=2)
    moment(peer)  # type: ignore[operator]
    peer.check(STRANGER)
    peer.receive(peer.request(number=9), STRANGER)
    peer.sent()
    peer.agent.close()
    selected = peer.agent.selected
    assert peer.agent.timeout() is None
    for nominate in (False, True):
        assert not peer.receive(peer.request(nominate=nominate, role=Role.CONTROLLING), remote(1).address)
    peer.agent.add_remote_candidate(remote(3), peer.now)
    peer.agent.add_local_candidate(peer.local, peer.now)
    peer.learn_credentials()
    peer.agent.handle_timeout(peer.now + 100.0)
    assert peer.until(peer.now + 200.0) == []
    assert peer.events() == []
    assert peer.agent.selected is selected


def test_an_answer_that_comes_after_closing_is_not_ours() -> None:
    peer = Scripted()
    check = peer.first_check()
    peer.agent.close()
    assert not peer.answer(check)
    assert peer.events() == []


def test_closing_twice_is_closing_once() -> None:
    peer = Scripted()
    peer.agent.close()
    peer.agent.close()
    assert peer.agent.report.state is CheckListState.CLOSED


def test_a_nomination_for_an_unknown_address_selects_the_pair_that_it_reveals() -> None:
    peer = Scripted(Role.CONTROLLED, remotes=0)
    source = Address("198.51.100.77", 7777)
    peer.check(source, nominate=True)
    peer.answer(peer.first_check())
    assert peer.agent.report.selected is not None
    assert peer.agent.report.selected.remote.address == source
