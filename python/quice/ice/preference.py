"""When another pair is to replace the one in use.

- One with fewer relays at once, for a relay costs somebody money and everybody time.
- Else only when the pair in use has been so for `SETTLE` seconds: one with fewer NATs between that is not slower; and
  one that is faster by `RTT_SHARE` and `RTT_MARGIN`, and has been so for `RTT_HOLD` seconds or takes less than
  `RTT_LEAP` of the time, for no queue makes such a difference between two pairs that are alike.

So two pairs that are alike never take turns.
"""

from __future__ import annotations

from quice.ice.pair import CandidatePair

SETTLE = 5.0
"""Seconds that a selected pair which works stays so."""
RTT_SHARE = 0.2
RTT_MARGIN = 0.01
"""A pair is faster when its round trip takes that share, and that many seconds, less."""
RTT_HOLD = 10.0
"""Seconds for which it must be."""
RTT_LEAP = 0.5


def is_promising(pair: CandidatePair, used: CandidatePair) -> bool:
    """Whether by what is known now the pair would be better than the one in use."""
    if pair.relays != used.relays:
        return pair.relays < used.relays
    return _is_faster(pair, used) or _is_nearer(pair, used)


def _is_nearer(pair: CandidatePair, used: CandidatePair) -> bool:
    return pair.detour < used.detour and not _is_faster(used, pair)


def _is_faster(pair: CandidatePair, other: CandidatePair) -> bool:
    if pair.rtt is None or other.rtt is None:
        return False
    return other.rtt - pair.rtt >= max(RTT_MARGIN, RTT_SHARE * other.rtt)


def _leaps(pair: CandidatePair, other: CandidatePair) -> bool:
    return pair.rtt is not None and other.rtt is not None and pair.rtt < RTT_LEAP * other.rtt


class Preference:
    """Judges pairs that work. It remembers which has been the faster one, and since when.

    The first pair may be replaced at once, if `select` was not called for it: then nobody has chosen it.
    """

    def __init__(self) -> None:
        self._settled_at = float("-inf")
        self._faster: CandidatePair | None = None
        self._faster_since = 0.0

    def select(self, now: float) -> None:
        """A pair was taken into use."""
        self._settled_at = now + SETTLE
        self._faster = None

    def forget(self, pair: CandidatePair) -> None:
        """The pair works no more."""
        if pair is self._faster:
            self._faster = None

    def replaces(self, pair: CandidatePair, used: CandidatePair, now: float) -> bool:
        """Whether the pair, heard from now, is to replace the one in use."""
        held = self._has_been_faster(pair, used, now)
        if pair.relays != used.relays:
            return pair.relays < used.relays
        return now >= self._settled_at and (held or _is_nearer(pair, used))

    def _has_been_faster(self, pair: CandidatePair, used: CandidatePair, now: float) -> bool:
        if not _is_faster(pair, used):
            self.forget(pair)
            return False
        if (
            self._faster is None
            or not self._faster.is_valid
            or ((pair.rtt or 0) < (self._faster.rtt or 0) and pair is not self._faster)
        ):
            self._faster, self._faster_since = pair, now
        return _leaps(pair, used) or (pair is self._faster and now >= self._faster_since + RTT_HOLD)
