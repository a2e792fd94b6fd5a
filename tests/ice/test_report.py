"""What a report says of why a connection is not direct."""

from __future__ import annotations

import pytest

from quice.ice import Candidate, CandidateKind, Report, Role
from quice.ice.checklist import CheckListState
from quice.ice.pair import PairState
from quice.ice.report import PairReport
from quice.wire import Address


def candidate(kind: CandidateKind, host: str) -> Candidate:
    return Candidate(kind=kind, address=Address(host, 1000), priority=1, foundation="1")


HERE, THERE = candidate(CandidateKind.HOST, "192.168.1.2"), candidate(CandidateKind.HOST, "198.51.100.7")
THERE6 = candidate(CandidateKind.HOST, "2001:db8::7")
OURS, THEIRS = candidate(CandidateKind.RELAYED, "203.0.113.1"), candidate(CandidateKind.RELAYED, "203.0.113.2")


def obstacle(local: list[Candidate], remote: list[Candidate], **direct: PairState) -> str:
    """`direct`: the state of the pair between here and there; there are relayed ones, too, which work."""
    pairs = [PairReport(HERE, THERE, state, False, None, 1) for state in direct.values()]
    relayed = [PairReport(OURS, other, PairState.SUCCEEDED, True, 0.1, 1) for other in remote]
    relayed += [PairReport(HERE, THEIRS, PairState.SUCCEEDED, False, 0.1, 1)]
    selected = relayed[0]
    return Report(
        Role.CONTROLLING, CheckListState.COMPLETED, tuple(local), tuple(remote), (*relayed, *pairs), selected
    ).obstacle


def test_a_side_without_addresses_of_its_own_is_said_to_be_the_reason() -> None:
    assert obstacle([OURS], [THERE, THEIRS]).startswith("this side uses no address")
    assert obstacle([HERE, OURS], [THEIRS]).startswith("the peer has told no address")


def test_addresses_of_different_families_are_said_to_be_the_reason() -> None:
    assert "no address family in common" in obstacle([HERE, OURS], [THERE6, THEIRS])


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (PairState.SUCCEEDED, "a direct way was found"),
        (PairState.FROZEN, "none of 1 direct candidate pairs has let a check through and its answer back so far"),
        (PairState.WAITING, "still being tried"),
        (PairState.IN_PROGRESS, "still being tried"),
        (PairState.FAILED, "none of 1 direct candidate pairs"),
    ],
)
def test_how_far_the_direct_pairs_are_is_said(state: PairState, said: str) -> None:
    assert said in obstacle([HERE, OURS], [THERE, THEIRS], direct=state)
