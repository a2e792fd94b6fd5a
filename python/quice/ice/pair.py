"""Candidate pairs and their states (RFC 8445 §6.1.2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from quice.ice.candidate import Candidate
from quice.wire import Address


class PairState(str, enum.Enum):
    """How far the check of a pair is (§6.1.2.6)."""

    FROZEN = "frozen"
    WAITING = "waiting"
    IN_PROGRESS = "in_progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


# §6.1.2.6, figure 7, with the ways back that §7.3.1.4 adds: a triggered check revives a pair in any state.
TRANSITIONS: dict[PairState, frozenset[PairState]] = {
    PairState.FROZEN: frozenset({PairState.WAITING, PairState.FAILED}),
    PairState.WAITING: frozenset({PairState.IN_PROGRESS, PairState.FAILED}),
    PairState.IN_PROGRESS: frozenset({PairState.SUCCEEDED, PairState.FAILED, PairState.WAITING}),
    PairState.SUCCEEDED: frozenset({PairState.IN_PROGRESS, PairState.FAILED}),
    PairState.FAILED: frozenset({PairState.WAITING}),
}


@dataclass(eq=False)
class CandidatePair:
    """A local and a remote candidate, and what the checks have found of the way between them."""

    local: Candidate
    remote: Candidate
    state: PairState = PairState.FROZEN
    nominated: bool = False
    nominated_by_peer: bool = False
    """A check with USE-CANDIDATE came before our own check of the pair was done (§7.3.1.5)."""
    rtt: float | None = None
    """Seconds between the last successful check and its answer, if it was sent once alone."""
    checks_sent: int = 0

    @property
    def base(self) -> Address:
        """The local address that checks are sent from."""
        return self.local.base or self.local.address

    @property
    def foundation(self) -> tuple[str, str]:
        """Pairs of one foundation probably fare alike (§6.1.2.6)."""
        return self.local.foundation, self.remote.foundation

    def priority(self, controlling: bool) -> int:
        """The pair's priority, the same on both sides (§6.1.2.3)."""
        ours, theirs = self.local.priority, self.remote.priority
        g, d = (ours, theirs) if controlling else (theirs, ours)
        return (min(g, d) << 32) + 2 * max(g, d) + (g > d)

    def move(self, state: PairState) -> None:
        """Change state; a change that the table does not allow is a bug."""
        if state is not self.state:
            if state not in TRANSITIONS[self.state]:
                raise ValueError(f"a pair does not go from {self.state.value} to {state.value}")
            self.state = state

    def __str__(self) -> str:
        return f"{self.local} -> {self.remote} {self.state.value}"
