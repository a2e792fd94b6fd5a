"""Which pair is better, and when one replaces another."""

from __future__ import annotations

import pytest

from quice.ice import Candidate, CandidateKind, CandidatePair, PairState
from quice.ice.preference import RTT_HOLD, SETTLE, Preference, is_promising
from quice.wire import Address

HOST, MAPPED, RELAYED = CandidateKind.HOST, CandidateKind.SERVER_REFLEXIVE, CandidateKind.RELAYED


def pair(kind: CandidateKind = HOST, rtt: float | None = None) -> CandidatePair:
    """A pair that works, with a candidate of the peer's of this kind."""
    ours = Candidate(kind=HOST, address=Address("192.0.2.1", 1), priority=1, foundation="1")
    theirs = Candidate(kind=kind, address=Address("192.0.2.2", 2), priority=1, foundation="2")
    return CandidatePair(ours, theirs, PairState.SUCCEEDED, rtt=rtt)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (pair(MAPPED, 0.2), pair(RELAYED, 0.01)),
        (pair(HOST, 0.1), pair(MAPPED, 0.1)),
        (pair(HOST), pair(MAPPED)),
        # The other is faster, but not by much.
        (pair(HOST, 0.1), pair(MAPPED, 0.09)),
        (pair(MAPPED, 0.08), pair(HOST, 0.3)),
        (pair(HOST, 0.08), pair(HOST, 0.1)),
    ],
)
def test_of_two_that_differ_one_is_better_and_never_the_other(better: CandidatePair, worse: CandidatePair) -> None:
    assert is_promising(better, worse)
    assert not is_promising(worse, better)
    assert not Preference().replaces(worse, better, 0.0)


@pytest.mark.parametrize("rtt", [0.095, 0.1, 0.105, None])
def test_of_two_that_are_alike_none_is_better(rtt: float | None) -> None:
    one, two = pair(HOST, rtt), pair(HOST, 0.1)
    assert not is_promising(one, two)
    assert not is_promising(two, one)


def test_a_much_faster_one_replaces_another_at_once_if_that_has_settled() -> None:
    preference = Preference()
    slow, fast = pair(HOST, 0.3), pair(MAPPED, 0.08)
    assert preference.replaces(fast, slow, 0.0)
    preference.select(0.0)
    assert not preference.replaces(fast, slow, SETTLE - 0.1)
    assert preference.replaces(fast, slow, SETTLE)


def test_a_faster_one_must_be_so_for_a_while() -> None:
    preference = Preference()
    slow, fast = pair(HOST, 0.1), pair(HOST, 0.07)
    assert not preference.replaces(fast, slow, 0.0)
    assert not preference.replaces(fast, slow, RTT_HOLD - 0.1)
    assert preference.replaces(fast, slow, RTT_HOLD)
    fast.rtt = 0.1
    assert not preference.replaces(fast, slow, RTT_HOLD + 1)
    fast.rtt = 0.07
    assert not preference.replaces(fast, slow, RTT_HOLD + 2)


def test_a_pair_without_a_relay_replaces_one_with_it_whatever_else() -> None:
    preference = Preference()
    preference.select(0.0)
    assert preference.replaces(pair(MAPPED), pair(RELAYED, 0.01), 0.1)
