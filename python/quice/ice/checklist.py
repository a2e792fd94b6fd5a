"""The checklist: which pairs there are, and which is checked next (RFC 8445 §6.1.2, RFC 8838 §12)."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator

from quice.ice.candidate import Candidate, CandidateKind, can_pair, on_link_of
from quice.ice.pair import CandidatePair, PairState
from quice.wire import Address

MAX_PAIRS = 100
"""RFC 8445 §6.1.2.5: more pairs than this are never checked."""


class CheckListState(str, enum.Enum):
    """How the checks as a whole are going (§6.1.2.1)."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CLOSED = "closed"
    """Ours: the agent was told to stop."""


class CheckList:
    """The pairs of one session in the order of their priority, and the queue of triggered checks."""

    def __init__(self, controlling: bool) -> None:
        self.state = CheckListState.RUNNING
        self._controlling = controlling
        self._pairs: list[CandidatePair] = []
        self._triggered: deque[CandidatePair] = deque()

    def __iter__(self) -> Iterator[CandidatePair]:
        """The pairs, the best first."""
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def set_controlling(self, controlling: bool) -> None:
        """Order the pairs anew after a change of role (§7.3.1.1)."""
        self._controlling = controlling
        self._sort()

    def priority(self, pair: CandidatePair) -> int:
        """The pair's priority under the role of now."""
        return pair.priority(self._controlling)

    def find(self, base: Address, remote: Address) -> CandidatePair | None:
        """The pair that sends from this base to this remote address."""
        for pair in self._pairs:
            if pair.remote.address == remote and pair.base == base:
                return pair
        return None

    def pair(self, local: Candidate, remote: Candidate) -> CandidatePair | None:
        """Add the pair of two candidates, unless it can't work, is there already, or the list is full."""
        base = local.base or local.address
        # §6.1.2.4: a reflexive candidate is sent from its base, so its pairs are those of the base.
        if local.kind is CandidateKind.SERVER_REFLEXIVE or not can_pair(base, remote.address):
            return None
        remote = on_link_of(base, remote)
        if self.find(base, remote.address) is not None:
            return None
        pair = CandidatePair(local, remote)
        if len(self._pairs) >= MAX_PAIRS and not self._make_room(pair):
            return None
        self._pairs.append(pair)
        self._sort()
        if self._may_thaw(pair):
            pair.move(PairState.WAITING)
        return pair

    def _make_room(self, pair: CandidatePair) -> bool:
        """Drop the worst pair that nothing has been done with, if it is worse than the new one (§6.1.2.5)."""
        untouched = (PairState.FROZEN, PairState.WAITING)
        worst = next((p for p in reversed(self._pairs) if p.state in untouched), None)
        if worst is None or self.priority(worst) >= self.priority(pair):
            return False
        self._pairs.remove(worst)
        if worst in self._triggered:
            self._triggered.remove(worst)
        return True

    def _sort(self) -> None:
        self._pairs.sort(key=self.priority, reverse=True)

    def _may_thaw(self, pair: CandidatePair) -> bool:
        """RFC 8838 §12: a pair waits at once when nothing of its foundation is being found out, or it works."""
        others = [p.state for p in self._pairs if p is not pair and p.foundation == pair.foundation]
        busy = any(state in (PairState.WAITING, PairState.IN_PROGRESS) for state in others)
        return PairState.SUCCEEDED in others or not busy

    def trigger(self, pair: CandidatePair) -> None:
        """Check this pair before all others (§7.3.1.4)."""
        if pair.state is not PairState.SUCCEEDED:
            if pair.state is PairState.FROZEN or pair.state is PairState.FAILED:
                pair.move(PairState.WAITING)
            if pair not in self._triggered:
                self._triggered.append(pair)

    def thaw(self, foundation: tuple[str, str]) -> None:
        """A pair of this foundation works: the others of it probably do (§7.2.5.3.3)."""
        for pair in self._pairs:
            if pair.state is PairState.FROZEN and pair.foundation == foundation:
                pair.move(PairState.WAITING)

    def rename(self, known: Candidate, candidate: Candidate) -> None:
        """Give a remote candidate the name that the peer has for it, wherever it is paired (§7.3.1.3)."""
        for pair in self._pairs:
            if pair.remote is known:
                pair.remote = candidate
                if pair.state is PairState.SUCCEEDED:
                    self.thaw(pair.foundation)
        self._sort()

    def next_triggered(self) -> CandidatePair | None:
        """The pair whose triggered check has waited longest (§6.1.4.2)."""
        while self._triggered:
            pair = self._triggered.popleft()
            if pair.state in (PairState.WAITING, PairState.IN_PROGRESS):
                return pair
        return None

    def next_ordinary(self) -> CandidatePair | None:
        """The best pair that waits, else the best that may thaw, which then waits (§6.1.4.2)."""
        pair = self._ordinary()
        if pair is not None:
            pair.move(PairState.WAITING)
        return pair

    def _ordinary(self) -> CandidatePair | None:
        busy = set()
        frozen = []
        for pair in self._pairs:
            if pair.state is PairState.WAITING:
                return pair
            if pair.state is PairState.IN_PROGRESS:
                busy.add(pair.foundation)
            elif pair.state is PairState.FROZEN:
                frozen.append(pair)
        return next((pair for pair in frozen if pair.foundation not in busy), None)

    @property
    def has_next(self) -> bool:
        """Whether a pair may be there to check."""
        return bool(self._triggered) or self._ordinary() is not None

    def stop(self, state: CheckListState) -> None:
        """No check begins any more: the list has come to its last state."""
        self.state = state
        self._triggered.clear()
