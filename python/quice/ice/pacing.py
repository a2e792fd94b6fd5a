"""How fast checks may follow each other, and when they are repeated (RFC 8445 §14, RFC 8489 §6.2.1)."""

from __future__ import annotations

import math

MIN_TA = 0.005
"""§14.2: seconds between any two transactions of all agents of one program."""
DEFAULT_TA = 0.005
"""Seconds between two checks that we propose: 200 checks of 120 bytes a second are 192 kbit/s, for a moment."""
UNSPOKEN_TA = 0.05
"""§14.2: what a peer that proposes nothing wants."""
MIN_RTO = 0.5
"""§14.3: no agent may repeat a request sooner. What the network loses first, the peer's own check, which triggers
a new one of ours, makes good sooner than that."""
RC = 7
RM = 16
"""RFC 8489 §6.2.1: requests go out at 0, 0.5, 1.5, 3.5, 7.5, 15.5 and 31.5 s, and are given up at 39.5 s."""


class Pacer:
    """The one timer of all agents and gatherers of a program that §14.2 asks for."""

    def __init__(self, interval: float = MIN_TA) -> None:
        self.interval = interval
        self.ready = -math.inf
        """When the next transaction may begin."""

    def take(self, now: float) -> None:
        """Something was sent."""
        self.ready = now + self.interval


def agreed_ta(ours: float, theirs: float | None) -> float:
    """The greater of both proposals (§14.2)."""
    return max(ours, UNSPOKEN_TA if theirs is None else theirs)


def rto(ta: float, unchecked: int) -> float:
    """Seconds until the first repetition of a check, with so many pairs waiting or in progress.

    The formula of §14.3 multiplies this by their number once more, which is minutes for a hundred pairs; §14.1 says
    what it is for: that the first check of every pair goes before any is repeated. Other formulas are allowed.
    """
    return max(MIN_RTO, ta * unchecked)
