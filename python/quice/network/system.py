"""Watching the network of the machine that this program runs on."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from quice.network.interfaces import local_addresses
from quice.network.monitor import Monitor
from quice.network.notices import drain, open_notices
from quice.network.routes import default_routes
from quice.network.state import NetworkChange, NetworkState
from quice.network.suspension import Clocks, Suspension, system_clocks

_INTERVAL = 2.0
"""Seconds between two looks at the clocks; and at the network, where the kernel gives no notices."""


def current_state() -> NetworkState:
    """How this machine is connected."""
    return NetworkState.of(local_addresses(), default_routes())


class SystemWatch:
    """See `quice.machine.Machine.watch`."""

    def __init__(
        self,
        tell: Callable[[NetworkChange], None],
        *,
        look: Callable[[], NetworkState] = current_state,
        clocks: Clocks | None = None,
        notices: Callable[[], socket.socket | None] = open_notices,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._suspension = Suspension(clocks or system_clocks(), _INTERVAL)
        # First the socket: what changes after the first look must not be missed.
        self._notices = self._listen(notices())
        self._monitor = Monitor(look, tell)
        self._timer = self._loop.call_later(_INTERVAL, self._tick)

    def close(self) -> None:
        """Tell no more."""
        self._timer.cancel()
        self._monitor.close()
        self._unlisten()

    def _listen(self, notices: socket.socket | None) -> socket.socket | None:
        if notices is not None:
            try:
                self._loop.add_reader(notices, self._on_notice)
            except NotImplementedError:
                notices.close()
                return None
        return notices

    def _unlisten(self) -> None:
        if self._notices is not None:
            self._loop.remove_reader(self._notices)
            self._notices.close()
            self._notices = None

    def _on_notice(self) -> None:
        assert self._notices is not None
        if drain(self._notices):
            self._monitor.notice(woken=self._suspension.is_over())

    def _tick(self) -> None:
        self._timer = self._loop.call_later(_INTERVAL, self._tick)
        woken = self._suspension.is_over()
        if woken or self._notices is None:
            self._monitor.notice(woken=woken)
