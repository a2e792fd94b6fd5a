"""The controlling agent: it chooses among the valid pairs, and again when there is reason to (RFC 8445 §8.1.1).

Regular nomination: as soon as a pair is valid and no better one is likely to become so within a moment, it is
nominated. If the peer has agreed to later nominations, a better pair replaces the selected one: `quice.ice.preference`
says which is better.
"""

from __future__ import annotations

from quice.ice.events import Role
from quice.ice.generation import Generation
from quice.ice.pair import CandidatePair
from quice.ice.preference import Preference
from quice.ice.strategy import Conclusion

NOMINATION_PATIENCE = 0.05
"""Seconds a valid pair waits for a better one that is being checked."""
RELAY_PATIENCE = 0.5
"""Seconds a pair through a relay waits if it can be nominated only once."""
NOMINATION_LIMIT = 2.0
"""Seconds without an answer after which another pair that works is nominated instead, if that is possible."""


class Controlling:
    """Nominates."""

    role = Role.CONTROLLING
    checks = True

    def __init__(self, generation: Generation, conclusion: Conclusion) -> None:
        self._generation = generation
        self._conclusion = conclusion
        self._choose_at: float | None = None
        self._give_up_at: float | None = None
        self._nominating: CandidatePair | None = None
        self._unanswered: set[CandidatePair] = set()
        """Those whose nomination the peer did not answer, though they work."""
        self._preference = Preference()

    def pair_valid(self, pair: CandidatePair, now: float) -> None:
        if self._generation.selected is None:
            self._consider(now)
        elif self._generation.continual and self._nominating is None:
            self._compare(pair, now)

    def pair_failed(self, pair: CandidatePair, now: float) -> None:
        self._preference.forget(pair)
        if pair is not self._nominating:
            return
        self._nominating = self._give_up_at = None
        selected = self._generation.selected
        if selected is None:
            # §8.1.1: another valid pair takes its place.
            self._consider(now)
        elif selected is not pair and selected.is_valid:
            # The peer may have taken the nomination whose answer never came.
            self._nominate(selected, now)

    def choose(self, pair: CandidatePair, now: float) -> None:
        selected = self._generation.selected
        if pair is not self._nominating and (selected is None or (self._generation.continual and pair is not selected)):
            self._nominate(pair, now)

    def nominated(self, pair: CandidatePair, number: int | None, now: float) -> None:
        """The peer has no say (§7.3.1.5)."""

    def nomination_answered(self, pair: CandidatePair, now: float) -> None:
        if pair is self._nominating:
            self._nominating = self._give_up_at = None
            self._preference.select(now)
            self._conclusion.select(pair, now)
            # What came to work meanwhile could not be nominated then.
            valid = (each for each in self._generation.checklist.valid if each not in self._unanswered)
            better = next((each for each in valid if each.relays < pair.relays), None)
            if better is not None and self._generation.continual:
                self._nominate(better, now)

    def candidates_complete(self, now: float) -> None:
        if self._generation.selected is None:
            self._consider(now)

    def selected_lost(self, pair: CandidatePair, fallback: CandidatePair | None, now: float) -> None:
        if fallback is not None:
            self._nominate(fallback, now)

    def timeout(self) -> float | None:
        times = [time for time in (self._choose_at, self._give_up_at) if time is not None]
        return min(times, default=None)

    def handle_timeout(self, now: float) -> None:
        if self._choose_at is not None and now >= self._choose_at:
            self._choose(now)
        if self._give_up_at is not None and now >= self._give_up_at:
            self._nominate_another(now)

    def _consider(self, now: float) -> None:
        """Nominate a valid pair: the best that may be at once, another if none better turns up in a moment."""
        best = next(self._generation.checklist.valid, None)
        if best is None or self._nominating is not None:
            return
        if best is self._generation.checklist.first:
            self._choose(now)
        else:
            relayed = best.detour > 1 and not self._generation.continual
            wanted = now + (RELAY_PATIENCE if relayed else NOMINATION_PATIENCE)
            self._choose_at = wanted if self._choose_at is None else min(self._choose_at, wanted)

    def _choose(self, now: float) -> None:
        self._choose_at = None
        best = next(self._generation.checklist.valid, None)
        if best is not None and self._nominating is None and self._generation.selected is None:
            self._nominate(best, now)

    def _nominate(self, pair: CandidatePair, now: float) -> None:
        self._choose_at = None
        self._nominating = pair
        self._give_up_at = now + NOMINATION_LIMIT if self._generation.continual else None
        if self._generation.continual:
            self._generation.latest_nomination += 1
        self._conclusion.begin_nomination(pair, max(0, self._generation.latest_nomination), now)

    def _nominate_another(self, now: float) -> None:
        """The nominated pair does not answer, although it did: the next one that does takes its place."""
        self._give_up_at = None
        if self._nominating is not None:
            self._unanswered.add(self._nominating)
        selected = self._generation.selected
        others = (pair for pair in self._generation.checklist.valid if pair is not self._nominating)
        other = selected if selected is not None and selected.is_valid else next(others, None)
        if other is not None and other is not self._nominating:
            self._nominate(other, now)

    def _compare(self, pair: CandidatePair, now: float) -> None:
        """Whether this pair, heard from now, is to replace the selected one."""
        selected = self._generation.selected
        if selected is None or pair is selected or not pair.is_valid:
            return
        if self._preference.replaces(pair, selected, now):
            self._nominate(pair, now)
