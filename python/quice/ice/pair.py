"""Candidate pairs and their states (RFC 8445 §6.1.2)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from quice.ice.candidate import Candidate, CandidateKind
from quice.wire import Address

# RFC 6298 §2.3: the weight of a new measurement in the smoothed round-trip time.
_SMOOTHING = 1 / 8


class PairState(str, enum.Enum):
    """How far the check of a pair is (§6.1.2.6)."""

    FROZEN = "frozen"
    WAITING = "waiting"
    IN_PROGRESS = "in_progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


# §6.1.2.6, figure 6, with what its text adds: a triggered check makes a pair wait again (§7.3.1.4), and an answer to
# a check that gave way to it still counts; a pair that worked can be lost, or checked anew after a long silence.
TRANSITIONS: dict[PairState, frozenset[PairState]] = {
    PairState.FROZEN: frozenset({PairState.WAITING, PairState.FAILED}),
    PairState.WAITING: frozenset({PairState.IN_PROGRESS, PairState.SUCCEEDED, PairState.FAILED}),
    PairState.IN_PROGRESS: frozenset({PairState.SUCCEEDED, PairState.FAILED, PairState.WAITING}),
    PairState.SUCCEEDED: frozenset({PairState.FAILED, PairState.WAITING}),
    PairState.FAILED: frozenset({PairState.WAITING}),
}


@dataclass(eq=False)
class CandidatePair:
    """A local and a remote candidate, and what the checks have found of the way between them."""

    local: Candidate
    remote: Candidate
    state: PairState = PairState.FROZEN
    nominated: bool = False
    nomination: int | None = None
    """The number of the peer's nomination that waits for our own check of the pair (§7.3.1.5)."""
    rtt: float | None = None
    """Seconds between a check that was sent once alone and its answer, smoothed."""
    checks_sent: int = 0
    is_answered: bool = False
    """Whether the peer has ever been found to be there."""
    mapped: Address | None = None
    """Where the peer sees what we send on this pair (§7.2.5.3.1)."""
    barred: bool = False
    """RFC 7675 §5.1: its consent has ended, and these credentials can't get it back."""
    base: Address = field(init=False)
    """The local address that is sent from."""

    def __post_init__(self) -> None:
        self.base = self.local.sent_from

    @property
    def foundation(self) -> tuple[str, str]:
        """Pairs of one foundation probably fare alike (§6.1.2.6)."""
        return self.local.foundation, self.remote.foundation

    @property
    def is_valid(self) -> bool:
        """Whether packets pass both ways."""
        return self.state is PairState.SUCCEEDED

    @property
    def is_hopeful(self) -> bool:
        """Whether it is being checked, and no check had to be repeated yet.

        §6.1.4.2 has the others of its foundation wait for as long as it is checked, which is most of a minute where
        nobody is. With RFC 8838 they may be what has replaced it: the allocation at a relay that was started again.
        """
        return self.state is PairState.IN_PROGRESS and self.checks_sent < 2

    @property
    def relays(self) -> int:
        """How many relays it leads through."""
        return [self.local.kind, self.remote.kind].count(CandidateKind.RELAYED)

    @property
    def detour(self) -> int:
        """0 from host to host, 1 through NATs, 2 and 4 through one and two relays."""
        mapped = self.mapped is not None and self.mapped != self.base.without_zone
        return 2 * self.relays or int(mapped or self.remote.kind is not CandidateKind.HOST)

    def priority(self, controlling: bool) -> int:
        """The pair's priority, the same on both sides (§6.1.2.3)."""
        ours, theirs = self.local.priority, self.remote.priority
        g, d = (ours, theirs) if controlling else (theirs, ours)
        return (min(g, d) << 32) + 2 * max(g, d) + (g > d)

    def measure(self, rtt: float) -> None:
        """Take in a round-trip time."""
        self.rtt = rtt if self.rtt is None else self.rtt + _SMOOTHING * (rtt - self.rtt)

    def move(self, state: PairState) -> None:
        """Change state; a change that the table does not allow is a bug."""
        if state is not self.state:
            if state not in TRANSITIONS[self.state]:
                raise ValueError(f"a pair does not go from {self.state.value} to {state.value}")
            self.state = state

    def __str__(self) -> str:
        return f"{self.local} -> {self.remote} {self.state.value}"
