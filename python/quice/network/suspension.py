"""Seeing from clocks that the machine was suspended, or that this program was stopped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

_STOPPED = 10.0
"""Seconds that a timer is late when the program was stopped (SIGSTOP), rather than busy."""


@dataclass(frozen=True)
class Clocks:
    """What a suspension shows in. awake: stands still while the machine is suspended; always: goes on then.

    tolerance: seconds by which `always` may gain on `awake` for other reasons.
    """

    awake: Callable[[], float]
    always: Callable[[], float]
    tolerance: float = 1.0


def system_clocks() -> Clocks:
    """The clocks of this system that come nearest."""
    if sys.platform == "linux":
        return Clocks(time.monotonic, lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    if sys.platform == "darwin":
        return Clocks(
            lambda: time.clock_gettime(time.CLOCK_UPTIME_RAW), lambda: time.clock_gettime(time.CLOCK_MONOTONIC)
        )
    # The time of day, which may also be set.
    return Clocks(time.monotonic, time.time, tolerance=5.0)


class Suspension:
    """Notices the gaps, if it is asked at every tick of a timer."""

    def __init__(self, clocks: Clocks, interval: float) -> None:
        """`interval`: seconds between two ticks."""
        self._clocks = clocks
        self._interval = interval
        self._last, self._gap = self._read()

    def is_over(self) -> bool:
        """Whether there was one since this was last asked."""
        awake, gap = self._read()
        suspended = gap - self._gap > self._clocks.tolerance
        stopped = awake - self._last > self._interval + _STOPPED
        self._last, self._gap = awake, gap
        return suspended or stopped

    def _read(self) -> tuple[float, float]:
        awake = self._clocks.awake()
        return awake, self._clocks.always() - awake
