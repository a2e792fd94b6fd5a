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
        if self._generation.selected is not None and not self._is_later(number):
            return
        pair.nomination = number
        if pair.is_valid:
            self._take(pair, now)

    def pair_valid(self, pair: CandidatePair, now: float) -> None:
        if pair.nomination is not None:
            self._take(pair, now)

    def _is_later(self, number: int) -> bool:
        """§8.1.1: one nomination is all, unless both have agreed on more."""
        return self._generation.continual and number > self._generation.latest_nomination

    def _take(self, pair: CandidatePair, now: float) -> None:
        number, pair.nomination = pair.nomination or 0, None
        if self._generation.selected is None or self._is_later(number):
            self._generation.latest_nomination = max(number, self._generation.latest_nomination)
            self._conclusion.select(pair, now)
