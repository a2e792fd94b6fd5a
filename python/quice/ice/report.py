"""What an agent knew and tried, as values that outlive it."""

from __future__ import annotations

from dataclasses import dataclass

from quice.ice.candidate import Candidate
from quice.ice.checklist import CheckListState
from quice.ice.events import Role
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


@dataclass(frozen=True)
class Report:
    """What the agent knew and tried: the answer to "why is this (not) direct?"."""

    role: Role
    state: CheckListState
    local_candidates: tuple[Candidate, ...]
    remote_candidates: tuple[Candidate, ...]
    pairs: tuple[PairReport, ...]
    selected: PairReport | None


def of_pair(pair: CandidatePair) -> PairReport:
    """The pair as it is now."""
    return PairReport(pair.local, pair.remote, pair.state, pair.nominated, pair.rtt, pair.checks_sent)
