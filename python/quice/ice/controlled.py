"""The controlled agent: it checks, and takes what the peer nominates (RFC 8445 §7.3.1.5)."""

from __future__ import annotations

from quice.ice.generation import Generation
from quice.ice.pair import CandidatePair
from quice.ice.strategy import Conclusion, Passive


class Controlled(Passive):
    """Selects the pair that the peer nominates, once our own check of it is answered, too."""

    def __init__(self, generation: Generation, conclusion: Conclusion) -> None:
        self._generation = generation
        self._conclusion = conclusion

    def nominated(self, pair: CandidatePair, number: int | None, now: float) -> None:
        # A nomination without a number is the peer's first (draft-thatcher-ice-renomination-01 §4).
        number = number or 0
        if not self._is_better(pair, number):
            return
        pair.nomination = number
        if pair.is_valid:
            self._take(pair, now)

    def selected_lost(self, pair: CandidatePair, fallback: CandidatePair | None, now: float) -> None:
        # The peer may not have lost it. Unless it nominates another, a check that gets through again is enough.
        pair.nomination = max(0, self._generation.latest_nomination)

    def pair_valid(self, pair: CandidatePair, now: float) -> None:
        if pair.nomination is not None:
            self._take(pair, now)

    def _is_better(self, pair: CandidatePair, number: int) -> bool:
        """Whether the pair is to be selected: the last of several, if both have agreed on that, else the best.

        §8.1.1: an agent that follows RFC 5245 nominates whatever it checks.
        """
        generation = self._generation
        if generation.selected is None:
            return True
        if generation.continual:
            return number > generation.latest_nomination
        return generation.checklist.priority(pair) > generation.checklist.priority(generation.selected)

    def _take(self, pair: CandidatePair, now: float) -> None:
        number, pair.nomination = pair.nomination or 0, None
        if self._is_better(pair, number):
            self._generation.latest_nomination = max(number, self._generation.latest_nomination)
            self._conclusion.select(pair, now)
