"""The least that is a clock for the simulated internet."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from contextvars import Context
from typing import Any


class Timer:
    """A call to come."""

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class HeapClock:
    """Time that passes when `advance` or `drain` says so."""

    def __init__(self) -> None:
        self._now = 0.0
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()

    def time(self) -> float:
        return self._now

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Timer:
        timer = Timer(lambda: callback(*args))
        heapq.heappush(self._timers, (when, next(self._count), timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let that much time pass."""
        end = self._now + seconds
        self._run(end)
        self._now = end

    def drain(self) -> None:
        """Let time pass until nothing is left to happen."""
        self._run(float("inf"))

    def _run(self, end: float) -> None:
        while self._timers and self._timers[0][0] <= end:
            when, _, timer = heapq.heappop(self._timers)
            self._now = max(self._now, when)
            if timer.callback is not None:
                timer.callback()
