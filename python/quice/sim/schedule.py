"""What is to happen when: one queue for all packets in flight, on a clock that knows timers only."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from contextvars import Context
from typing import Any, Protocol


class Timer(Protocol):
    """What `Clock.call_at` returns."""

    def cancel(self) -> None: ...


class Clock(Protocol):
    """Simulated time; an asyncio event loop is one."""

    def time(self) -> float: ...

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Timer: ...


class Schedule:
    """Calls in the order of their times, and of their coming where times are equal.

    It has one timer on the clock, for the first of them: a timer of an event loop costs more than a packet may.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._queue: list[tuple[float, int, Callable[[Any], object], Any]] = []
        self._count = 0
        self._timer: Timer | None = None
        self._armed = 0.0
        self._running = False
        # Not that of the task which happens to send: a packet's arrival is no part of it.
        self._context = Context()
        self.time = clock.time

    def call_at(self, when: float, callback: Callable[[Any], object], argument: Any) -> None:
        """Call `callback(argument)` when it is `when`, at once if that is past, but never before this returns."""
        self._count += 1
        heapq.heappush(self._queue, (when, self._count, callback, argument))
        if not self._running and (self._timer is None or when < self._armed):
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._armed = self._queue[0][0]
        self._timer = self._clock.call_at(self._armed, self._run, context=self._context)

    def _run(self) -> None:
        self._timer = None
        self._running = True
        queue, pop, now = self._queue, heapq.heappop, self._clock.time()
        try:
            while queue and queue[0][0] <= now:
                _, _, callback, argument = pop(queue)
                callback(argument)
        finally:
            self._running = False
            if queue:
                self._arm()
