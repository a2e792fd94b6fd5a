"""What an agent knew and tried, as values that outlive it."""

from __future__ import annotations

from dataclasses import dataclass

from quice.ice.candidate import Candidate, CandidateKind
from quice.ice.checklist import CheckListState
from quice.ice.events import Role
from quice.ice.generation import Generation
from quice.ice.pair import CandidatePair, PairState


@dataclass(frozen=True)
class PairReport:
    """A pair as a report shows it; `rtt` in seconds."""

    local: Candidate
    remote: Candidate
    state: PairState
    nominated: bool
    rtt: float | None
    checks_sent: int

    @property
    def is_relayed(self) -> bool:
        """Whether it leads through a relay, on either side."""
        return CandidateKind.RELAYED in (self.local.kind, self.remote.kind)


@dataclass(frozen=True)
class Report:
    """What the agent knew and tried: the answer to "why is this (not) direct?"."""

    role: Role
    state: CheckListState
    local_candidates: tuple[Candidate, ...]
    remote_candidates: tuple[Candidate, ...]
    pairs: tuple[PairReport, ...]
    selected: PairReport | None
    generation: int = 0
    """How often ICE had been restarted."""

    @property
    def obstacle(self) -> str:
        """Why no pair without a relay was selected, as far as is known, in half a sentence."""
        if all(candidate.kind is CandidateKind.RELAYED for candidate in self.local_candidates):
            return "this side uses no address but those of its relays"
        if all(candidate.kind is CandidateKind.RELAYED for candidate in self.remote_candidates):
            return "the peer has told no address but those of its relays"
        direct = [pair for pair in self.pairs if not pair.is_relayed]
        if not direct:
            return "no address of this side can be paired with one of the peer's: they have no address family in common"
        if any(pair.state is PairState.SUCCEEDED for pair in direct):
            return "a direct way was found, and is about to be taken"
        if any(pair.state is not PairState.FAILED for pair in direct):
            return (
                f"none of {len(direct)} direct candidate pairs has let a check through and its answer back so far; "
                "they are still being tried"
            )
        return f"none of {len(direct)} direct candidate pairs let a check through and its answer back"


def of_pair(pair: CandidatePair) -> PairReport:
    """The pair as it is now."""
    return PairReport(pair.local, pair.remote, pair.state, pair.nominated, pair.rtt, pair.checks_sent)


def failure(generation: Generation, controlling: bool) -> str:
    """Why there is no selected pair, in a sentence."""
    if generation.peer is None:
        return "the peer's candidates never came"
    if not generation.local:
        return "this side has no candidate"
    if not generation.remote:
        return "the peer has named no candidate that this side may try"
    if len(generation.checklist) == 0:
        return "no candidate of ours has a counterpart of the peer's in the same address family"
    if any(generation.checklist.valid):
        if controlling:
            return "a candidate pair works, but the peer did not answer when it was chosen"
        return "a candidate pair works, but the peer, whose choice it is, never chose one"
    count = sum(1 for pair in generation.checklist if pair.checks_sent)
    reason = f"none of {count} candidate pairs let a check through and its answer back"
    complete = generation.local_complete and generation.remote_complete
    return reason if complete else f"{reason}, and not all candidates are known"
