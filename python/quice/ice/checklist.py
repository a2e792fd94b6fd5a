"""The checklist: which pairs there are, and which is checked next (RFC 8445 §6.1.2, RFC 8838 §12)."""

from __future__ import annotations

import bisect
import enum
import itertools
from collections import deque
from collections.abc import Collection, Iterator

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


# §8.1.2. Back from completed: the selected pair was lost, and another is sought. A failed list stays so: an ICE
# restart has a new one.
TRANSITIONS: dict[CheckListState, frozenset[CheckListState]] = {
    CheckListState.RUNNING: frozenset({CheckListState.COMPLETED, CheckListState.FAILED, CheckListState.CLOSED}),
    CheckListState.COMPLETED: frozenset({CheckListState.RUNNING, CheckListState.FAILED, CheckListState.CLOSED}),
    CheckListState.FAILED: frozenset({CheckListState.CLOSED}),
    CheckListState.CLOSED: frozenset(),
}

_OPEN = (PairState.FROZEN, PairState.WAITING)
_BUSY = (PairState.WAITING, PairState.IN_PROGRESS)


class CheckList:
    """The pairs of one session in the order of their priority, and the queue of triggered checks."""

    def __init__(self, controlling: bool, limit: int = MAX_PAIRS) -> None:
        self.state = CheckListState.RUNNING
        self.floor: CandidatePair | None = None
        """The pair that has to be outdone: no other check than of a better one begins by itself."""
        self._controlling = controlling
        self._limit = limit
        self._pairs: list[CandidatePair] = []
        self._index: dict[tuple[Address, Address], CandidatePair] = {}
        self._triggered: deque[CandidatePair] = deque()

    def __iter__(self) -> Iterator[CandidatePair]:
        """The pairs, the best first."""
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def is_running(self) -> bool:
        return self.state is CheckListState.RUNNING

    @property
    def first(self) -> CandidatePair | None:
        """The pair of the highest priority."""
        return self._pairs[0] if self._pairs else None

    @property
    def valid(self) -> Iterator[CandidatePair]:
        """The valid list (§7.2.5.3.2), the best pair first."""
        return (pair for pair in self._pairs if pair.is_valid)

    @property
    def unchecked(self) -> int:
        """Num-Waiting and Num-In-Progress of §14.3 together."""
        return sum(pair.state in _BUSY for pair in self._pairs)

    def move(self, state: CheckListState) -> None:
        """Change state; a change that the table does not allow is a bug."""
        if state is not self.state:
            if state not in TRANSITIONS[self.state]:
                raise ValueError(f"a checklist does not go from {self.state.value} to {state.value}")
            self.state = state

    def set_controlling(self, controlling: bool) -> None:
        """Order the pairs anew after a change of role (§7.3.1.1)."""
        self._controlling = controlling
        self._sort()

    def priority(self, pair: CandidatePair) -> int:
        """The pair's priority under the role of now."""
        return pair.priority(self._controlling)

    def find(self, base: Address, remote: Address) -> CandidatePair | None:
        """The pair that sends from this base to this remote address."""
        return self._index.get((base, remote))

    def pair(self, local: Candidate, remote: Candidate, *, heard: bool = False) -> CandidatePair | None:
        """Add the pair of two candidates, unless it can't work, is there already, or the list is full. `heard`: a check
        of the peer's has come on it."""
        base = local.sent_from
        if local.kind is CandidateKind.PEER_REFLEXIVE or not can_pair(base, remote.address, heard=heard):
            return None
        remote = on_link_of(base, remote)
        known = self.find(base, remote.address)
        if known is not None:
            # §6.1.2.4: a reflexive candidate is sent from its base, so its pairs are those of the base.
            if known.local.kind is CandidateKind.SERVER_REFLEXIVE and local.priority > known.local.priority:
                known.local = local
                self._sort()
            return None
        pair = CandidatePair(local, remote)
        if len(self._pairs) >= self._limit and not self._make_room(pair):
            return None
        self._index[base, remote.address] = pair
        bisect.insort(self._pairs, pair, key=self._order)
        if self._may_thaw(pair):
            pair.move(PairState.WAITING)
        return pair

    def _order(self, pair: CandidatePair) -> int:
        return -self.priority(pair)

    def _make_room(self, pair: CandidatePair) -> bool:
        """Drop the worst failed pair, or else the worst that nothing was done with, if it is worse (RFC 8838 §10)."""
        # A pair whose consent has ended stays, so that nobody forgets that it has.
        worst = next((p for p in reversed(self._pairs) if p.state is PairState.FAILED and not p.barred), None)
        if worst is None:
            # One that waits again may have a check on its way, whose answer counts.
            untouched = (p for p in reversed(self._pairs) if p.state in _OPEN and not p.checks_sent)
            worst = next(untouched, None)
            if worst is None or self.priority(worst) >= self.priority(pair):
                return False
        self.remove(worst)
        return True

    def remove(self, pair: CandidatePair) -> None:
        """Take a pair off the list."""
        self._pairs.remove(pair)
        del self._index[pair.base, pair.remote.address]
        self.dequeue(pair)

    def _sort(self) -> None:
        self._pairs.sort(key=self._order)

    def _may_thaw(self, pair: CandidatePair) -> bool:
        """RFC 8838 §12: a pair waits at once when nothing of its foundation is being found out, or it works."""
        alike = [p for p in self._pairs if p is not pair and p.foundation == pair.foundation]
        return any(p.is_valid for p in alike) or not any(p.state is PairState.WAITING or p.is_hopeful for p in alike)

    def trigger(self, pair: CandidatePair) -> None:
        """Check this pair, which does not work yet, before all others (§7.3.1.4)."""
        if not pair.is_valid and not pair.barred:
            pair.move(PairState.WAITING)
            self.enqueue(pair)

    def enqueue(self, pair: CandidatePair) -> None:
        """Put a pair into the triggered-check queue (§6.1.4.1), if it is not there."""
        if pair not in self._triggered:
            self._triggered.append(pair)

    def dequeue(self, pair: CandidatePair) -> None:
        """Take a pair out of the triggered-check queue."""
        if pair in self._triggered:
            self._triggered.remove(pair)

    def succeed(self, pair: CandidatePair) -> None:
        """The pair works: others of its foundation probably do, too (§7.2.5.3.3)."""
        pair.move(PairState.SUCCEEDED)
        self._thaw(pair.foundation)

    def fail(self, pair: CandidatePair) -> None:
        """The pair does not work, or no longer. §7.2.5.2: those of its foundation stay as they are."""
        pair.move(PairState.FAILED)
        self.dequeue(pair)

    def revive(self, fresh: Collection[CandidatePair]) -> None:
        """Check once more what has failed, and what works but is not among those that did so lately."""
        for pair in self._pairs:
            failed = pair.state is PairState.FAILED and not pair.barred
            if failed or (pair.is_valid and pair not in fresh):
                pair.move(PairState.WAITING)

    def _thaw(self, foundation: tuple[str, str]) -> None:
        for pair in self._pairs:
            if pair.state is PairState.FROZEN and pair.foundation == foundation:
                pair.move(PairState.WAITING)

    def rename(self, known: Candidate, candidate: Candidate) -> None:
        """Give a remote candidate the name that the peer has for it, wherever it is paired (§7.3.1.3)."""
        for pair in self._pairs:
            if pair.remote.kind is known.kind and pair.remote.address.without_zone == known.address.without_zone:
                pair.remote = on_link_of(pair.base, candidate)
                if pair.is_valid:
                    self._thaw(pair.foundation)
        self._sort()

    def conclude(self, selected: CandidatePair, continual: bool) -> list[CandidatePair]:
        """§8.1.2: a selected pair ends all checks, but those of better pairs if one of them may replace it.

        Returns the pairs whose checks go on.
        """
        self.floor = selected
        self._triggered.clear()
        better = list(itertools.takewhile(lambda pair: pair is not selected, self._pairs)) if continual else []
        for pair in self._pairs[len(better) :]:
            if pair.state is PairState.IN_PROGRESS:
                pair.move(PairState.WAITING)
        return better

    def next_triggered(self) -> CandidatePair | None:
        """The pair whose triggered check has waited longest (§6.1.4.2, step 1)."""
        return self._triggered.popleft() if self._triggered else None

    def next_ordinary(self) -> CandidatePair | None:
        """The best pair that waits, else the best that may thaw, which then waits (§6.1.4.2, steps 2 and 3)."""
        pair = self._ordinary()
        if pair is not None:
            pair.move(PairState.WAITING)
        return pair

    def _ordinary(self) -> CandidatePair | None:
        frozen = []
        for pair in self._pairs:
            if pair is self.floor:
                break
            if pair.state is PairState.WAITING:
                return pair
            if pair.state is PairState.FROZEN:
                frozen.append(pair)
        if not frozen:
            return None
        busy = {pair.foundation for pair in self._pairs if pair.is_hopeful}
        return next((pair for pair in frozen if pair.foundation not in busy), None)

    @property
    def has_triggered(self) -> bool:
        """Whether a triggered check is to be sent."""
        return bool(self._triggered)

    @property
    def has_next(self) -> bool:
        """Whether a pair is there to check."""
        return bool(self._triggered) or self._ordinary() is not None

    def forget_triggered(self) -> None:
        """No check that was triggered begins any more (§8.1.2)."""
        self._triggered.clear()
