"""Connectivity checks of one agent, whose peer is the test (RFC 8445 §7)."""

import itertools
import tracemalloc

import pytest

from quice.ice import CandidateKind, Failed, PairState, PairValid, Role
from quice.ice.agent import LATE_PATIENCE, PATIENCE
from quice.ice.candidate import MAX_LOCAL_PREFERENCE, priority
from quice.ice.checklist import MAX_PAIRS
from quice.ice.checks import MAX_CANCELLED
from quice.ice.generation import MAX_EARLY_CHECKS, MAX_REMOTE_CANDIDATES
from quice.ice.pacing import DEFAULT_TA, MIN_TA, RC, Pacer
from quice.stun.attributes import (
    IceControlled,
    IceControlling,
    Priority,
    UseCandidate,
    Username,
    XorMappedAddress,
)
from quice.stun.message import Kind, Message, Method
from quice.wire import Address
from tests.ice.network import host_candidate, reflexive_candidate
from tests.ice.scripted import BASE, PWD, STRANGER, TIE_BREAKER, UFRAG, Scripted, Sent, remote


def numbers(sent: list[Sent]) -> list[int]:
    """Which of the peer's candidates the requests went to."""
    return [each.to.port - 6000 for each in sent if each.message.kind is Kind.REQUEST]


@pytest.mark.parametrize("role", list(Role))
def test_rfc8445_7_2_2_a_check_names_both_ufrags_a_priority_and_the_role(role: Role) -> None:
    peer = Scripted(role)
    check = peer.first_check()
    message = check.message
    assert check.transmit.source == BASE
    assert check.to == remote(1).address
    assert message.get(Username) == Username(f"{UFRAG}:{peer.agent.credentials.ufrag}")
    assert message.get(Priority) == Priority(priority(CandidateKind.PEER_REFLEXIVE, MAX_LOCAL_PREFERENCE))
    controlling, controlled = message.get(IceControlling), message.get(IceControlled)
    assert controlling == (IceControlling(TIE_BREAKER) if role is Role.CONTROLLING else None)
    assert controlled == (IceControlled(TIE_BREAKER) if role is Role.CONTROLLED else None)
    assert message.get(UseCandidate) is None
    assert message.has_fingerprint
    assert message.verify(PWD.encode())


def test_rfc8445_14_2_a_check_begins_every_ta_the_best_pair_first() -> None:
    peer = Scripted(remotes=9)
    sent = peer.until(8.5 * DEFAULT_TA)
    assert numbers(sent) == list(range(1, 10))
    assert [each.time for each in sent] == pytest.approx([n * DEFAULT_TA for n in range(9)])


def test_rfc8489_6_2_1_an_unanswered_check_is_repeated_with_growing_pauses_and_fails_in_the_end() -> None:
    peer = Scripted(patience=60.0)
    sent = peer.until(39.49)
    assert [each.time for each in sent] == pytest.approx([0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5])
    assert len({each.transmit for each in sent}) == 1
    assert peer.state() is PairState.IN_PROGRESS
    assert peer.until(39.51) == []
    assert peer.state() is PairState.FAILED


def test_checks_never_come_closer_than_ta_even_when_many_are_due() -> None:
    peer = Scripted(remotes=40)
    times = [each.time for each in peer.until(7.0)]
    assert len(times) == 4 * 40
    assert min(after - before for before, after in itertools.pairwise(times)) > 0.999 * DEFAULT_TA


def test_an_answer_makes_the_pair_valid_and_tells_its_round_trip_time() -> None:
    peer = Scripted(Role.CONTROLLED)
    check = peer.first_check()
    peer.until(0.07)
    assert peer.answer(check)
    (event,) = peer.events()
    assert isinstance(event, PairValid)
    assert event.pair.remote.address == remote(1).address
    assert peer.pair(remote(1).address).rtt == pytest.approx(0.07)


def test_rfc8489_6_2_1_the_answer_to_a_repeated_request_tells_no_round_trip_time() -> None:
    peer = Scripted(Role.CONTROLLED)
    check = peer.first_check()
    peer.until(0.55)
    peer.answer(check)
    assert peer.state() is PairState.SUCCEEDED
    assert peer.pair(remote(1).address).rtt is None


def test_a_second_copy_of_an_answer_changes_nothing() -> None:
    peer = Scripted(Role.CONTROLLED)
    check = peer.first_check()
    assert peer.answer(check)
    before = peer.agent.report
    assert not peer.answer(check)
    assert peer.agent.report == before
    assert len(peer.events()) == 1


def test_rfc8445_7_3_1_3_an_authentic_check_is_answered_with_where_it_came_from() -> None:
    peer = Scripted()
    (answer,) = peer.check(STRANGER, number=77)
    assert answer.message.kind is Kind.SUCCESS
    assert answer.message.transaction_id == (77).to_bytes(12, "big")
    assert answer.message.get(XorMappedAddress) == XorMappedAddress(STRANGER)
    assert answer.message.verify(peer.agent.credentials.key)
    assert answer.message.has_fingerprint
    assert (answer.transmit.source, answer.to) == (BASE, STRANGER)


def test_rfc8445_7_3_1_4_a_triggered_check_goes_before_all_that_wait() -> None:
    peer = Scripted(remotes=9)
    assert numbers(peer.until(0)) == [1]
    peer.check(remote(8).address)
    assert numbers(peer.until(2.5 * DEFAULT_TA)) == [8, 2]


def test_rfc8445_6_1_4_2_a_triggered_check_goes_before_repetitions_that_are_due() -> None:
    peer = Scripted(remotes=30)
    peer.until(30 * DEFAULT_TA)
    # The loop was late: all checks are overdue.
    peer.now = 0.75
    peer.check(remote(25).address)
    assert numbers(peer.until(0.752)) == [25]
    assert numbers(peer.until(0.757)) == [1]


def test_rfc8445_14_3_the_first_check_of_every_pair_goes_before_any_is_repeated() -> None:
    peer = Scripted(remotes=60, ta=0.02)
    sent = peer.until(4.0)
    assert numbers(sent)[:60] == list(range(1, 61))
    assert numbers(sent)[60] == 1
    assert sent[60].time >= 60 * 0.02


def test_rfc8445_14_2_the_slower_of_both_proposals_is_the_pace() -> None:
    for theirs, agreed in ((0.02, 0.02), (None, 0.05), (0.001, DEFAULT_TA)):
        peer = Scripted(remotes=3, credentials=False)
        peer.agent.set_remote_credentials(UFRAG, PWD, peer.now, ta=theirs)
        assert [each.time for each in peer.until(0.2)] == pytest.approx([0, agreed, 2 * agreed])


def test_rfc8445_14_2_all_agents_of_a_program_keep_one_pace() -> None:
    pacer = Pacer()
    peers = [Scripted(remotes=5, pacer=pacer) for _ in range(4)]
    times: list[float] = []
    while (due := min(time for peer in peers if (time := peer.agent.timeout()) is not None)) < 0.4:
        for peer in peers:
            peer.now = due
            peer.agent.handle_timeout(due)
            times += [each.time for each in peer.sent()]
    assert times == pytest.approx([n * MIN_TA for n in range(20)])


def test_rfc8445_7_3_1_4_a_check_in_progress_gives_way_to_a_triggered_one() -> None:
    peer = Scripted(Role.CONTROLLED)
    old = peer.first_check()
    peer.check(remote(1).address)
    new = peer.first_check()
    assert new.to == old.to
    assert new.message.transaction_id != old.message.transaction_id
    later = peer.until(1.0)
    assert later
    assert {each.message.transaction_id for each in later} == {new.message.transaction_id}


def test_rfc8445_7_3_1_4_an_answer_to_a_check_that_gave_way_still_counts() -> None:
    peer = Scripted(Role.CONTROLLED)
    old = peer.first_check()
    peer.check(remote(1).address)
    peer.first_check()
    assert peer.answer(old)
    assert peer.state() is PairState.SUCCEEDED
    assert peer.until(1.0) == []


def test_an_error_to_a_check_that_gave_way_leaves_the_new_one_alone() -> None:
    peer = Scripted(Role.CONTROLLED)
    old = peer.first_check()
    peer.check(remote(1).address)
    new = peer.first_check()
    peer.answer(old, code=400)
    assert peer.state() is PairState.IN_PROGRESS
    peer.answer(new)
    assert peer.state() is PairState.SUCCEEDED


def test_rfc8445_7_3_1_4_a_check_from_the_peer_revives_a_failed_pair() -> None:
    peer = Scripted(remotes=2)
    peer.answer(peer.first_check(), code=400)
    assert peer.state() is PairState.FAILED
    peer.check(remote(1).address)
    assert peer.state() is PairState.WAITING
    assert peer.first_check().to == remote(1).address


def test_rfc8445_7_3_1_4_a_check_on_a_pair_that_works_triggers_none() -> None:
    peer = Scripted(Role.CONTROLLED)
    peer.answer(peer.first_check())
    assert [each.message.kind for each in peer.check(remote(1).address)] == [Kind.SUCCESS]
    assert peer.until(1.0) == []


def test_rfc8445_7_3_1_3_a_check_from_an_unknown_address_reveals_a_candidate() -> None:
    peer = Scripted()
    peer.check(STRANGER, priority=1234567)
    found = peer.agent.report.remote_candidates[-1]
    assert (found.kind, found.address, found.priority) == (CandidateKind.PEER_REFLEXIVE, STRANGER, 1234567)
    assert found.foundation != remote(1).foundation
    assert peer.first_check().to == STRANGER


def test_rfc8445_7_3_1_3_a_revealed_candidate_takes_the_name_that_signalling_gives_it() -> None:
    peer = Scripted(Role.CONTROLLED, remotes=0)
    peer.check(remote(1).address, priority=5)
    check = peer.first_check()
    peer.agent.add_remote_candidate(remote(1), peer.now)
    assert peer.agent.report.remote_candidates == (remote(1),)
    assert [pair.remote for pair in peer.agent.report.pairs] == [remote(1)]
    peer.answer(check)
    assert peer.state() is PairState.SUCCEEDED


def test_a_signalled_candidate_does_not_lose_its_name_to_a_second_of_the_same_address() -> None:
    peer = Scripted()
    peer.agent.add_remote_candidate(reflexive_candidate(remote(1).address, STRANGER), peer.now)
    assert peer.agent.report.remote_candidates == (remote(1),)


def test_rfc8445_7_2_5_3_1_an_unknown_mapped_address_is_a_candidate_of_ours() -> None:
    peer = Scripted()
    mapped = Address("203.0.113.9", 40009)
    peer.answer(peer.first_check(), mapped=mapped)
    found = peer.agent.report.local_candidates[-1]
    assert (found.kind, found.address, found.base) == (CandidateKind.PEER_REFLEXIVE, mapped, BASE)
    assert found.priority == priority(CandidateKind.PEER_REFLEXIVE, MAX_LOCAL_PREFERENCE)
    assert found.related_address == BASE


def test_rfc8445_7_2_5_3_1_a_known_mapped_address_is_no_new_candidate() -> None:
    peer = Scripted()
    reflexive = reflexive_candidate(Address("203.0.113.9", 40009), BASE)
    peer.agent.add_local_candidate(reflexive, peer.now)
    peer.answer(peer.first_check(), mapped=reflexive.address)
    assert peer.agent.report.local_candidates == (peer.local, reflexive)


def test_a_check_before_the_peers_password_is_answered_and_triggers_one_when_it_comes() -> None:
    peer = Scripted(remotes=0, credentials=False)
    assert [each.message.kind for each in peer.check(STRANGER)] == [Kind.SUCCESS]
    assert peer.until(0.5) == []
    peer.learn_credentials()
    check = peer.first_check()
    assert (check.time, check.to) == (0.5, STRANGER)


def test_an_early_nomination_is_not_forgotten() -> None:
    peer = Scripted(Role.CONTROLLED, credentials=False)
    peer.check(remote(1).address, nominate=True)
    peer.learn_credentials()
    peer.answer(peer.first_check())
    assert peer.agent.selected is not None


def test_early_checks_are_kept_up_to_a_limit_and_all_answered() -> None:
    peer = Scripted(remotes=0, credentials=False)
    sources = [Address("198.51.100.66", 1000 + n) for n in range(2 * MAX_EARLY_CHECKS)]
    assert [len(peer.check(source)) for source in sources] == [1] * len(sources)
    peer.learn_credentials()
    assert [each.address for each in peer.agent.report.remote_candidates] == sources[:MAX_EARLY_CHECKS]


def test_a_peer_that_names_thousands_of_candidates_costs_a_fixed_amount() -> None:
    peer = Scripted(remotes=3000)
    for port in range(1, 3000):
        peer.check(Address("198.51.100.66", port))
    report = peer.agent.report
    assert len(report.remote_candidates) == MAX_REMOTE_CANDIDATES
    assert len(report.pairs) == MAX_REMOTE_CANDIDATES


def test_a_revealed_candidate_can_be_named_even_when_there_is_room_for_no_more() -> None:
    peer = Scripted(remotes=0)
    for number in range(1, MAX_REMOTE_CANDIDATES + 1):
        peer.check(remote(number).address)
    peer.agent.add_remote_candidate(remote(1), peer.now)
    assert remote(1) in peer.agent.report.remote_candidates


def test_a_check_that_came_to_no_base_of_ours_is_answered_and_makes_no_pair() -> None:
    peer = Scripted()
    before = peer.agent.report
    assert peer.receive(peer.request(), STRANGER, Address("10.0.0.99", 5000))
    assert peer.agent.report == before


@pytest.mark.parametrize(
    ("flaw", "options"),
    [
        ("another ufrag of ours", {"username": f"wrong:{UFRAG}"}),
        ("our ufrag as a mere beginning", {"username": f"{{own}}x:{UFRAG}"}),
        ("no colon", {"username": "{own}"}),
        ("another password", {"key": "guessed"}),
        ("the peer's own password", {"key": PWD}),
        ("no FINGERPRINT", {"fingerprint": False}),
        ("no PRIORITY", {"priority": None}),
    ],
)
@pytest.mark.parametrize("credentials", [True, False])
def test_rfc8445_7_3_a_check_that_is_not_authentic_changes_nothing(
    flaw: str, options: dict[str, object], credentials: bool
) -> None:
    peer = Scripted(Role.CONTROLLED, credentials=credentials)
    before, woken = peer.agent.report, peer.agent.timeout()
    data = peer.request(nominate=True, role=Role.CONTROLLED, tie_breaker=0, **options)  # type: ignore[arg-type]
    assert not peer.receive(data, STRANGER), flaw
    assert peer.sent() == []
    assert peer.events() == []
    assert (peer.agent.report, peer.agent.timeout()) == (before, woken)


@pytest.mark.parametrize("position", [0, 1, 8, 19, 24, 30, 60, -5])
def test_a_check_with_one_bit_turned_changes_nothing(position: int) -> None:
    peer = Scripted()
    before = peer.agent.report
    data = bytearray(peer.request())
    data[position] ^= 1
    assert not peer.receive(bytes(data), STRANGER)
    assert peer.sent() == []
    assert peer.agent.report == before


@pytest.mark.parametrize("kind", [Kind.INDICATION, Kind.SUCCESS, Kind.ERROR])
def test_a_message_that_answers_none_of_our_checks_changes_nothing(kind: Kind) -> None:
    peer = Scripted()
    peer.first_check()
    before = peer.agent.report
    message = Message(Method.BINDING, kind, bytes(12), (XorMappedAddress(BASE),)).encode(PWD.encode())
    assert not peer.receive(message, remote(1).address)
    assert peer.sent() == []
    assert peer.agent.report == before


def test_rfc8489_9_1_4_an_answer_that_is_not_authentic_changes_nothing() -> None:
    peer = Scripted(Role.CONTROLLED)
    check = peer.first_check()
    before = peer.agent.report
    for code in (None, 400, 487):
        assert peer.answer(check, key="guessed", code=code)
    assert peer.events() == []
    assert peer.agent.report == before
    assert peer.answer(check)
    assert peer.state() is PairState.SUCCEEDED


@pytest.mark.parametrize(
    "options",
    [
        {"source": STRANGER},
        {"source": Address(remote(1).address.host, 1)},
        {"destination": Address("10.0.0.2", 5000)},
    ],
)
def test_rfc8445_7_2_5_2_1_an_answer_that_took_another_way_fails_the_pair(options: dict[str, Address]) -> None:
    peer = Scripted()
    check = peer.first_check()
    assert peer.answer(check, **options)  # type: ignore[arg-type]
    assert peer.state() is PairState.FAILED
    assert peer.events() == []
    assert peer.until(5.0) == []


def test_rfc8445_7_2_5_2_2_an_error_fails_the_pair() -> None:
    peer = Scripted(remotes=2)
    peer.answer(peer.first_check(), code=400)
    assert peer.state(1) is PairState.FAILED
    assert peer.state(2) is PairState.WAITING


def test_an_answer_without_a_mapped_address_fails_the_pair() -> None:
    peer = Scripted()
    peer.answer(peer.first_check(), mapped=None)
    assert peer.state() is PairState.FAILED


@pytest.mark.parametrize("data", [b"", b"\x00", bytes(20), b"\x00\x01\x00\x00" + bytes(16), bytes(65507), b"\xff" * 40])
def test_what_is_no_stun_message_is_not_ours(data: bytes) -> None:
    assert not Scripted().receive(data, STRANGER)


@pytest.mark.parametrize("renomination", [True, False])
def test_rfc8445_19_5_1_a_peer_with_ten_thousand_candidates_costs_a_fixed_amount(renomination: bool) -> None:
    peer = Scripted(remotes=0, renomination=renomination)
    for number in range(2, 8):
        peer.agent.add_local_candidate(host_candidate(Address(f"10.0.0.{number}", 5000)), peer.now)
    tracemalloc.start()
    for port in range(1, 10_001):
        address = Address("198.51.100.66", port)
        if port % 2:
            peer.agent.add_remote_candidate(reflexive_candidate(address, STRANGER), peer.now)
        else:
            peer.receive(peer.request(number=port), address)
        peer.sent()
        if port == 1000:
            before = tracemalloc.get_traced_memory()[0]
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 50_000
    report = peer.agent.report
    assert len(report.remote_candidates) == MAX_REMOTE_CANDIDATES
    assert len(report.pairs) == MAX_PAIRS
    sent = [each for each in peer.until(60.0) if each.message.kind is Kind.REQUEST]
    assert len(sent) <= RC * MAX_PAIRS
    assert len({(each.transmit.source, each.to) for each in sent}) <= MAX_PAIRS


def test_checks_that_give_way_again_and_again_cost_a_fixed_amount() -> None:
    peer = Scripted(Role.CONTROLLED)
    first = peer.first_check()
    newer: list[Sent] = []
    for number in range(500):
        peer.now += DEFAULT_TA
        peer.check(remote(1).address, number=number)
        newer += peer.sent()
    assert len(newer) == 500
    # The peer's answer to a check that is long forgotten is none.
    assert not peer.answer(first)
    assert peer.answer(newer[-MAX_CANCELLED])
    assert peer.state() is PairState.SUCCEEDED


@pytest.mark.parametrize("renomination", [True, False])
def test_rfc8838_14_a_candidate_after_the_end_of_candidates_is_ignored_unless_both_go_on(renomination: bool) -> None:
    peer = Scripted(renomination=renomination)
    peer.agent.end_of_remote_candidates(peer.now)
    peer.agent.add_remote_candidate(remote(2), peer.now)
    assert (remote(2) in peer.agent.report.remote_candidates) is renomination


def test_rfc8838_16_a_peer_that_names_all_its_candidates_beforehand_can_meet_one_that_trickles() -> None:
    peer = Scripted(remotes=0)
    peer.until(3.0)
    peer.agent.add_remote_candidate(remote(1), peer.now)
    peer.agent.end_of_remote_candidates(peer.now)
    check = peer.first_check()
    assert (check.time, check.to) == (3.0, remote(1).address)


def test_rfc8863_4_a_candidate_that_comes_late_has_a_few_seconds_of_its_own() -> None:
    peer = Scripted(remotes=0)
    peer.until(PATIENCE - 0.5)
    peer.agent.add_remote_candidate(remote(1), peer.now)
    peer.until(PATIENCE - 0.5 + LATE_PATIENCE - 0.001)
    assert peer.events() == []
    peer.until(PATIENCE - 0.5 + LATE_PATIENCE)
    assert [type(event) for event in peer.events()] == [Failed]
