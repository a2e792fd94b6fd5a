"""How much may be sent to where a peer says that it is, before anybody there has answered."""

from __future__ import annotations

import math


class Budget:
    """So much at once, and so much a second in the long run: bytes here, elsewhere whatever else costs something.

    A peer names addresses freely, and may name somebody else's. What is more than this is not sent to one that has not
    answered, as if the network had lost it: checks are repeated, and an address that answers costs nothing any more.
    """

    def __init__(self, burst: float = math.inf, rate: float = 0.0, within: Budget | None = None) -> None:
        """`within`: a budget that this one shares with others."""
        self.burst = burst
        self.rate = rate
        self._within = within
        self._left = burst
        self._renewed = 0.0

    def take(self, size: int, now: float) -> bool:
        """Whether so many bytes may go out; then they count."""
        if self.left(now) < size or not (self._within is None or self._within.take(size, now)):
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """So many bytes were not sent after all, or to somebody who has answered."""
        self._left = min(self.burst, self._left + size)
        if self._within is not None:
            self._within.give_back(size)

    def left(self, now: float) -> float:
        """Bytes that may go out now."""
        self._left = min(self.burst, self._left + max(0.0, now - self._renewed) * self.rate)
        self._renewed = max(self._renewed, now)
        return self._left

    def is_whole(self, now: float) -> bool:
        """Whether nothing of it is spent, so that it may be forgotten."""
        return self.left(now) >= self.burst
