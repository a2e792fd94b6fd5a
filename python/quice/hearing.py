"""Whether the peer of a connection is heard from, for as long as something waits for its answer."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable
from typing import cast

from quice import _native
from quice.pump import Pump

_TICK = 0.25
"""Seconds between two looks at what has come."""
_IDLE_TICK = 2.0
"""The same, after a while in which nothing was sent and nothing came: each time twice as long, and at most this."""
_LONG = 0.5
"""Seconds of silence after which an answer is asked for at each look: a probe timeout has been doubled by then, and
will be again."""
_FLOW = 4
"""Looks in a row at which something had come, after which it is asked for when it stops: a question and its answer are
no flow, else the two sides would ask each other forever."""


class Hearing:
    """Looks at one connection's counts, and tells when the peer is silent that should not be."""

    def __init__(self, native: _native.Connection, pump: Pump, on_tick: Callable[[], None]) -> None:
        """`on_tick`: called after each look."""
        self._native = native
        self._pump = pump
        self._on_tick = on_tick
        self._loop = asyncio.get_running_loop()
        self._silence = 0.0
        self._sent = self._received = 0
        self._flow = 0
        """At so many looks in a row something had come."""
        self._came = self._loop.time()
        self._pause = _TICK
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(_TICK, _wake, weakref.ref(self))

    @property
    def silence(self) -> float:
        """For how many seconds the peer has owed an answer."""
        try:
            return self._native.silence()
        except _native.ConnectionGone:
            return 0.0

    @property
    def pause(self) -> float:
        """For how many seconds nothing has come at all, as of the last look."""
        return self._loop.time() - self._came

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        self._timer = None
        try:
            active = self._look()
        except _native.ConnectionGone:
            return
        self._pause = _TICK if active else min(2 * self._pause, _IDLE_TICK)
        self._timer = self._loop.call_later(self._pause, _wake, weakref.ref(self))
        self._on_tick()

    def _look(self) -> bool:
        """Returns whether anything happens."""
        stats, silence = self._native.stats(), self._native.silence()
        sent, received = stats["sent_datagrams"], stats["received_datagrams"]
        if max(silence, self._silence) >= _LONG:
            self._native.nudge()
            self._pump.wake()
        self._silence = silence
        active = (sent, received) != (self._sent, self._received) or silence > 0
        if received != self._received:
            self._came = self._loop.time()
            self._flow += 1
        else:
            # Who only receives is owed nothing, and would never learn that it is not reached any more.
            if self._flow >= _FLOW:
                self._ask()
            self._flow = 0
        self._sent, self._received = sent, received
        return active

    def _ask(self) -> None:
        for path in self._native.paths():
            if path["status"] == "available":
                with contextlib.suppress(_native.PathRefused):
                    self._native.ping_path(cast("int", path["id"]))
        self._pump.wake()


def _wake(reference: weakref.ref[Hearing]) -> None:
    # A connection that nobody holds any more is not kept for this.
    if (hearing := reference()) is not None:
        hearing._tick()
