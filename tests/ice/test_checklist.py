"""Pairing, pruning, the limit, and the order of checks, on a checklist alone."""

import itertools

import pytest

from quice.ice import Candidate, CandidateKind, CandidatePair, PairState
from quice.ice.checklist import MAX_PAIRS, CheckList
from quice.ice.pair import TRANSITIONS
from quice.wire import Address
from tests.ice.network import host_candidate, reflexive_candidate

HERE = Address("10.0.0.1", 5000)
THERE = Address("192.0.2.7", 6000)


def remote(number: int, foundation: str, priority: int | None = None) -> Candidate:
    """A candidate of the peer's; without a priority, a lower number is better."""
    return Candidate(
        kind=CandidateKind.HOST,
        address=Address(f"192.0.2.{number}", 6000),
        priority=1000 - number if priority is None else priority,
        foundation=foundation,
    )


def listed(*remotes: Candidate) -> tuple[CheckList, list[CandidatePair]]:
    """A checklist with a pair of each remote candidate with one local one, in that order."""
    checklist = CheckList(controlling=True)
    pairs = [checklist.pair(host_candidate(HERE), each) for each in remotes]
    return checklist, [pair for pair in pairs if pair is not None]


def fail(pair: CandidatePair) -> None:
    pair.move(PairState.IN_PROGRESS)
    pair.move(PairState.FAILED)


def succeed(checklist: CheckList, pair: CandidatePair) -> None:
    pair.move(PairState.IN_PROGRESS)
    checklist.succeed(pair)


@pytest.mark.parametrize(
    ("controlling", "controlled", "expected"),
    [
        (2130706431, 1694498815, (1694498815 << 32) + 2 * 2130706431 + 1),
        (1694498815, 2130706431, (1694498815 << 32) + 2 * 2130706431),
        (7, 7, (7 << 32) + 14),
    ],
)
def test_rfc8445_6_1_2_3_both_agents_compute_the_same_pair_priority(
    controlling: int, controlled: int, expected: int
) -> None:
    one = Candidate(kind=CandidateKind.HOST, address=HERE, priority=controlling, foundation="1", base=HERE)
    two = Candidate(kind=CandidateKind.HOST, address=THERE, priority=controlled, foundation="2", base=THERE)
    assert CandidatePair(one, two).priority(controlling=True) == expected
    assert CandidatePair(two, one).priority(controlling=False) == expected


def test_rfc8445_6_1_2_3_the_list_is_in_the_order_of_pair_priorities() -> None:
    checklist, pairs = listed(remote(3, "c"), remote(1, "a"), remote(2, "b"))
    assert list(checklist) == [pairs[1], pairs[2], pairs[0]]
    assert [checklist.priority(pair) for pair in checklist] == sorted(map(checklist.priority, pairs), reverse=True)


def test_rfc8445_7_3_1_1_a_change_of_role_sorts_the_list_anew() -> None:
    checklist = CheckList(controlling=True)
    # Equal least priorities and sums: which is first depends on whose is the greater (§6.1.2.3).
    ours_better = checklist.pair(
        Candidate(kind=CandidateKind.HOST, address=HERE, priority=9, foundation="1"), remote(1, "a", 5)
    )
    base = Address("10.0.0.1", 5001)
    theirs_better = checklist.pair(
        Candidate(kind=CandidateKind.HOST, address=base, priority=5, foundation="2"), remote(2, "b", 9)
    )
    assert list(checklist) == [ours_better, theirs_better]
    checklist.set_controlling(False)
    assert list(checklist) == [theirs_better, ours_better]


def test_rfc8445_6_1_2_4_a_server_reflexive_candidate_gives_no_pair_beside_the_one_of_its_base() -> None:
    checklist = CheckList(controlling=True)
    assert checklist.pair(host_candidate(HERE), remote(1, "a")) is not None
    mapped = reflexive_candidate(Address("198.51.100.1", 40000), HERE)
    assert checklist.pair(mapped, remote(1, "a")) is None
    assert len(checklist) == 1


def test_rfc8445_6_1_2_4_a_server_reflexive_candidate_whose_base_is_not_told_is_sent_from_it_all_the_same() -> None:
    checklist = CheckList(controlling=True)
    pair = checklist.pair(reflexive_candidate(Address("198.51.100.1", 40000), HERE), remote(1, "a"))
    assert pair is not None
    assert pair.base == HERE
    assert checklist.pair(host_candidate(HERE), remote(1, "a")) is None
    assert pair.local == host_candidate(HERE)


def test_rfc8445_6_1_2_4_a_second_pair_of_the_same_base_and_remote_address_is_pruned() -> None:
    checklist, pairs = listed(remote(1, "a"))
    assert checklist.pair(host_candidate(HERE), remote(1, "b", 7)) is None
    assert list(checklist) == pairs


def test_rfc8445_6_1_2_2_families_are_not_mixed() -> None:
    checklist = CheckList(controlling=True)
    assert checklist.pair(host_candidate(Address("2001:db8::1", 5000)), remote(1, "a")) is None
    assert len(checklist) == 0


def test_one_remote_link_local_candidate_pairs_in_the_zone_of_each_base() -> None:
    checklist = CheckList(controlling=True)
    candidate = host_candidate(Address("fe80::2%their0", 6000))
    for zone in ("eth0", "wlan0"):
        checklist.pair(host_candidate(Address(f"fe80::1%{zone}", 5000)), candidate)
    assert {pair.remote.address.host for pair in checklist} == {"fe80::2%eth0", "fe80::2%wlan0"}


def test_rfc8445_6_1_2_5_of_more_than_the_limit_the_best_are_kept() -> None:
    total = MAX_PAIRS + 20
    checklist, _ = listed(*(remote(number, str(number)) for number in range(total, 0, -1)))
    assert [pair.remote.address.host for pair in checklist] == [f"192.0.2.{n}" for n in range(1, MAX_PAIRS + 1)]


def test_rfc8445_6_1_2_5_a_pair_worse_than_all_of_a_full_list_is_not_added() -> None:
    checklist, pairs = listed(*(remote(number, str(number)) for number in range(1, MAX_PAIRS + 1)))
    assert checklist.pair(host_candidate(HERE), remote(200, "x")) is None
    assert list(checklist) == pairs


def test_a_full_list_never_drops_a_pair_that_is_being_checked_or_was() -> None:
    checklist, pairs = listed(*(remote(number, str(number)) for number in range(1, MAX_PAIRS + 1)))
    for pair in pairs[1:]:
        pair.move(PairState.IN_PROGRESS)
    better = checklist.pair(host_candidate(HERE), remote(200, "x", 2000))
    assert set(checklist) == {*pairs[1:], better}
    assert checklist.pair(host_candidate(HERE), remote(201, "y", 1999)) is None


def test_a_pair_dropped_from_a_full_list_is_not_checked_although_it_was_triggered() -> None:
    checklist, pairs = listed(*(remote(number, str(number)) for number in range(1, MAX_PAIRS + 1)))
    checklist.trigger(pairs[-1])
    checklist.pair(host_candidate(HERE), remote(200, "x", 2000))
    assert checklist.next_triggered() is None


def test_rfc8445_6_1_2_6_of_each_foundation_one_pair_waits_and_the_others_are_frozen() -> None:
    _, pairs = listed(remote(1, "a"), remote(2, "a"), remote(3, "b"), remote(4, "b"))
    states = [pair.state for pair in pairs]
    assert states == [PairState.WAITING, PairState.FROZEN, PairState.WAITING, PairState.FROZEN]


def test_rfc8445_6_1_4_2_the_best_waiting_pair_comes_first_and_a_frozen_one_last() -> None:
    checklist, (best, frozen, second) = listed(remote(1, "a"), remote(2, "a"), remote(3, "b"))
    assert checklist.next_ordinary() is best
    best.move(PairState.IN_PROGRESS)
    assert checklist.next_ordinary() is second
    second.move(PairState.IN_PROGRESS)
    assert checklist.next_ordinary() is None
    assert not checklist.has_next
    assert frozen.state is PairState.FROZEN


def test_rfc8445_7_2_5_3_3_a_success_thaws_the_pairs_of_its_foundation_alone() -> None:
    checklist, (first, same, other, other_too) = listed(remote(1, "a"), remote(2, "a"), remote(3, "b"), remote(4, "b"))
    succeed(checklist, first)
    assert same.state is PairState.WAITING
    assert other.state is PairState.WAITING
    assert other_too.state is PairState.FROZEN


def test_rfc8445_6_1_4_2_a_failure_lets_the_next_pair_of_its_foundation_thaw() -> None:
    checklist, (first, second, third) = listed(remote(1, "a"), remote(2, "a"), remote(3, "a"))
    fail(first)
    assert checklist.has_next
    assert checklist.next_ordinary() is second
    assert second.state is PairState.WAITING
    assert third.state is PairState.FROZEN


def test_a_pair_waits_no_longer_for_one_of_its_foundation_whose_check_had_to_be_repeated() -> None:
    """Such as that of an address that a relay, started again, does not have any more."""
    checklist, pairs = listed(remote(1, "same"), remote(2, "same"))
    pairs[0].move(PairState.IN_PROGRESS)
    pairs[0].checks_sent = 1
    assert checklist.next_ordinary() is None
    assert pairs[1].state is PairState.FROZEN
    pairs[0].checks_sent = 2
    assert checklist.next_ordinary() is pairs[1]
    later = checklist.pair(host_candidate(HERE), remote(3, "other"))
    assert later is not None
    later.move(PairState.IN_PROGRESS)
    later.checks_sent = 2
    latest = checklist.pair(host_candidate(HERE), remote(4, "other"))
    assert latest is not None
    assert latest.state is PairState.WAITING


def test_rfc8838_12_a_later_pair_of_a_foundation_that_works_waits_at_once() -> None:
    checklist, (first,) = listed(remote(1, "a"))
    succeed(checklist, first)
    late = checklist.pair(host_candidate(HERE), remote(2, "a"))
    assert late is not None
    assert late.state is PairState.WAITING


def test_rfc8445_7_3_1_4_triggered_pairs_come_first_come_first_served() -> None:
    checklist, (first, frozen, failed) = listed(remote(1, "a"), remote(2, "a"), remote(3, "b"))
    fail(failed)
    for pair in (failed, frozen, failed):
        checklist.trigger(pair)
    assert failed.state is frozen.state is PairState.WAITING
    assert [checklist.next_triggered() for _ in range(3)] == [failed, frozen, None]
    assert checklist.next_ordinary() is first


def test_rfc8445_7_3_1_4_a_pair_that_works_is_not_triggered() -> None:
    checklist, (pair,) = listed(remote(1, "a"))
    succeed(checklist, pair)
    checklist.trigger(pair)
    assert checklist.next_triggered() is None
    assert pair.state is PairState.SUCCEEDED


def test_what_was_triggered_can_be_forgotten() -> None:
    checklist, (pair,) = listed(remote(1, "a"))
    checklist.trigger(pair)
    checklist.forget_triggered()
    assert checklist.next_triggered() is None


def test_rfc8445_7_3_1_3_a_candidate_with_a_new_name_keeps_its_pairs_and_takes_its_place() -> None:
    checklist, (revealed, other) = listed(remote(1, "x", 3), remote(2, "b", 5))
    assert list(checklist) == [other, revealed]
    named = remote(1, "a", 9)
    checklist.rename(revealed.remote, named)
    assert list(checklist) == [revealed, other]
    assert revealed.remote is named


def test_a_pair_that_works_under_a_new_name_thaws_the_pairs_of_its_new_foundation() -> None:
    checklist, (revealed, _, frozen) = listed(remote(1, "x"), remote(2, "a"), remote(3, "a"))
    succeed(checklist, revealed)
    assert frozen.state is PairState.FROZEN
    checklist.rename(revealed.remote, remote(1, "a"))
    assert frozen.state is PairState.WAITING


@pytest.mark.parametrize(("before", "after"), list(itertools.permutations(PairState, 2)))
def test_rfc8445_6_1_2_6_a_pair_moves_as_the_table_says_and_no_other_way(before: PairState, after: PairState) -> None:
    pair = CandidatePair(host_candidate(HERE), remote(1, "a"), before)
    if after in TRANSITIONS[before]:
        pair.move(after)
        assert pair.state is after
    else:
        with pytest.raises(ValueError, match=f"from {before.value} to {after.value}"):
            pair.move(after)
