"""Lite agents: they answer checks and send none (RFC 8445 §2.5)."""

from __future__ import annotations

from quice.ice.events import Role
from quice.ice.generation import Generation
from quice.ice.pair import CandidatePair, PairState
from quice.ice.strategy import Conclusion, Passive


def _take(generation: Generation, pair: CandidatePair) -> None:
    """Put a pair on the valid list that nobody has checked from here (§7.3.2)."""
    if not pair.is_valid:
        pair.move(PairState.WAITING)
        generation.checklist.succeed(pair)


class Lite(Passive):
    """With a full peer: selects what the peer nominates, without a check of its own (§7.3.2)."""

    checks = False

    def __init__(self, generation: Generation, conclusion: Conclusion) -> None:
        self._generation = generation
        self._conclusion = conclusion

    def nominated(self, pair: CandidatePair, number: int | None, now: float) -> None:
        if self._generation.selected is None:
            _take(self._generation, pair)
            self._conclusion.select(pair, now)


class BothLite(Passive):
    """With a lite peer: both take the best pair of their candidates, for nobody checks any (§6.1.1, §8.2).

    Pair priorities are the same on both sides (§6.1.2.3), so that nobody has to tell the other which pair that is.
    """

    checks = False

    def __init__(self, generation: Generation, conclusion: Conclusion) -> None:
        self._generation = generation
        self._conclusion = conclusion

    def candidates_complete(self, now: float) -> None:
        best = self._generation.checklist.first
        if best is not None and self._generation.selected is None:
            _take(self._generation, best)
            self._conclusion.select(best, now)


class ControllingLite(BothLite):
    """The initiating one of two lite agents."""

    role = Role.CONTROLLING
