"""The engine on a simulated machine: its datagrams go through the simulated internet, its time is the loop's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING

from quice import _native
from quice.sim.packet import Packet, Protocol
from quice.wire import Address, Transmit

if TYPE_CHECKING:
    from quice.sim.clock import SimLoop
    from quice.sim.host import Binding, Host

# The engine counts nanoseconds, the loop in floating point: a timer must not be a rounding error too early for ever.
_TICK = 1e-6


class SimPump:
    """See `quice.pump.Pump`."""

    def __init__(
        self, loop: SimLoop, host: Host, engine: _native.Engine, dispatch: Callable[[_native.Event], None]
    ) -> None:
        self.engine = engine
        self._loop = loop
        self._host = host
        self._dispatch = dispatch
        self._bindings: dict[bool, Binding] = {}
        self._soon: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        # Packets come from no program in particular: what they set off runs on this machine.
        self._context = copy_context()

    def bind(self, host: str, port: int) -> Address:
        """See `Pump`."""
        binding = self._host.bind(Protocol.UDP, Address(host, port), self._receive)
        self.engine.bind(*binding.local)
        self._bindings[":" in host] = binding
        return binding.local

    def send(self, transmit: Transmit) -> None:
        """See `Pump`."""
        source = transmit.source.host if transmit.source is not None else None
        self._transmit(transmit.data, source, transmit.destination)

    def wake(self) -> None:
        """See `Pump`."""
        if self._soon is None and not self._closed:
            self._soon = self._loop.call_soon(self._pump, context=self._context)

    def flush(self) -> None:
        """See `Pump`."""
        if self._soon is not None:
            self._pump()

    def close(self) -> None:
        """See `Pump`."""
        if self._closed:
            return
        self._closed = True
        for handle in (self._soon, self._timer):
            if handle is not None:
                handle.cancel()
        for binding in self._bindings.values():
            binding.close()
        self.engine.close()

    def _receive(self, packet: Packet) -> None:
        self.engine.receive(packet.data, packet.source, packet.destination.host, self._loop.time())
        self.wake()

    def _pump(self) -> None:
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._closed:
            return
        now = self._loop.time()
        events, timeout, _, _ = self.engine.pump(now)
        for data, source, destination in self.engine.transmits():
            self._transmit(data, source, Address(*destination))
        self._wake_at(None if timeout is None else max(timeout, now + _TICK))
        for event in events:
            self._dispatch(event)

    def _transmit(self, data: bytes, source: str | None, destination: Address) -> None:
        binding = self._bindings.get(":" in destination.host)
        if binding is not None:
            # What the kernel refuses to send is a lost datagram.
            with contextlib.suppress(OSError):
                binding.send(data, destination, source)

    def _wake_at(self, when: float | None) -> None:
        if when is None or (self._timer is not None and self._timer.when() <= when):
            # A timer that fires early finds nothing to do and sets the next: cheaper than a new one each time.
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._on_timer, context=self._context)

    def _on_timer(self) -> None:
        self._timer = None
        self._pump()
