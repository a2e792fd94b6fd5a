"""Telling of changes of the network: once for each, however many notices the system gives of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Protocol

from quice.network.state import NetworkChange, NetworkState

_SETTLING = 0.01
"""Seconds from a notice to looking: a link that comes up is told of in several."""
_SPACING = 0.05
"""Seconds between two looks, however many notices there are."""


class Watch(Protocol):
    """Somebody is told when the network changes, until this is closed."""

    def close(self) -> None:
        """Tell no more."""


class Monitor:
    """Compares how the network is with how it was, whenever there may be a difference."""

    def __init__(self, look: Callable[[], NetworkState], tell: Callable[[NetworkChange], None]) -> None:
        """`look` says how the network is now; `tell` is called with each change."""
        self._look = look
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._known = look()
        self._timer: asyncio.TimerHandle | None = None
        self._looked = -math.inf
        self._woken = False

    def notice(self, *, woken: bool = False) -> None:
        """Something may have changed. `woken`: the machine has slept, which is told of in any case."""
        self._woken = self._woken or woken
        if self._timer is None:
            when = max(self._loop.time() + _SETTLING, self._looked + _SPACING)
            self._timer = self._loop.call_at(when, self._compare)

    def close(self) -> None:
        """Tell no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _compare(self) -> None:
        self._timer = None
        self._looked = self._loop.time()
        before, self._known = self._known, self._look()
        woken, self._woken = self._woken, False
        change = before.changed_to(self._known, woken=woken)
        if change is not None:
            self._tell(change)
