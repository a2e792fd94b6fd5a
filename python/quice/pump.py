"""The engine on an event loop: when to pump, and where the events go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from quice import _native
from quice.wire import Address, Transmit

# A timer that is late by less than this is not worth another one.
_TIMER_SLACK = 0.0005
# Turns of the loop that acknowledgements wait for the application's answer, to leave in one datagram with it: in
# the first a task takes the stream, in the second the task that it starts answers.
_PATIENCE = 1


class Pump(Protocol):
    """What keeps an engine going: it moves packets, timers and events whenever there are some."""

    @property
    def engine(self) -> _native.Engine: ...

    def bind(self, host: str, port: int) -> Address:
        """Bind a UDP port. Raises `OSError`, and `ValueError` for a host that is no IP address."""

    def send(self, transmit: Transmit) -> None:
        """Send a datagram that is not QUIC. It may get lost."""

    def wake(self) -> None:
        """Pump in the loop's next turn: there is something to send. Calls until then count once."""

    def flush(self) -> None:
        """Do now what `wake` asked for: the caller is about to wait for the answer."""

    def close(self) -> None:
        """Stop pumping and free the port. Events that are not dispatched yet are dropped."""


class SocketPump:
    """A pump on the system's sockets: it runs when one is readable, a timer is due, or `wake` asks for it.

    `dispatch` gets each event, in order, from the event loop; it must not raise.
    """

    def __init__(self, engine: _native.Engine, dispatch: Callable[[_native.Event], None]) -> None:
        self.engine = engine
        self._dispatch = dispatch
        self._loop = asyncio.get_running_loop()
        self._sockets: list[int] = []
        self._soon: asyncio.Handle | None = None
        self._wanted = False
        self._patience = 0
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0
        self._blocked = False
        self._closed = False
        self._loop.add_reader(engine.news_fd, self._on_readable)

    def bind(self, host: str, port: int) -> Address:
        """See `Pump`."""
        descriptor, address = self.engine.bind(host, port)
        self._sockets.append(descriptor)
        self._loop.add_reader(descriptor, self._on_readable)
        return Address(*address)

    def send(self, transmit: Transmit) -> None:
        """See `Pump`."""
        source = transmit.source.host if transmit.source is not None else None
        self.engine.send(transmit.data, transmit.destination, source)

    def wake(self) -> None:
        """See `Pump`."""
        self._wanted = True
        if self._soon is None and not self._closed:
            self._soon = self._loop.call_soon(self._on_soon)

    def flush(self) -> None:
        """See `Pump`."""
        if self._wanted:
            self._pump(receive=False)

    def _on_readable(self) -> None:
        if self._pump(receive=True) and self._soon is None:
            self._patience = _PATIENCE
            self._soon = self._loop.call_soon(self._on_soon)

    def _on_soon(self) -> None:
        self._soon = None
        if self._wanted or self._patience == 0:
            self._pump(receive=False)
        else:
            self._patience -= 1
            self._soon = self._loop.call_soon(self._on_soon)

    def _pump(self, *, receive: bool) -> bool:
        """Pump now; returns whether it is to be done again."""
        if self._closed:
            return False
        # Without a look at the sockets when it is for sending: the loop tells when they are readable.
        events, timeout, more, blocked = self.engine.pump(receive=receive, hold=receive)
        if not more:
            self._wanted = False
            if self._soon is not None:
                self._soon.cancel()
                self._soon = None
        if timeout is not None:
            self._wake_in(timeout)
        for event in events:
            self._dispatch(event)
        if more and not receive:
            self.wake()
        if blocked is not self._blocked:
            self._watch_writable(blocked)
        return more

    def _wake_in(self, seconds: float) -> None:
        when = self._loop.time() + seconds
        if self._timer is not None:
            # A timer that fires early finds nothing to do and sets the next: cheaper than a new one each time.
            if self._timer_at <= when + _TIMER_SLACK:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._pump(receive=False)

    def _watch_writable(self, blocked: bool) -> None:
        self._blocked = blocked
        for descriptor in self._sockets:
            if blocked:
                self._loop.add_writer(descriptor, self._on_readable)
            else:
                self._loop.remove_writer(descriptor)

    def close(self) -> None:
        """See `Pump`."""
        if self._closed:
            return
        self._closed = True
        for handle in (self._soon, self._timer):
            if handle is not None:
                handle.cancel()
        for descriptor in self._sockets:
            self._loop.remove_reader(descriptor)
            self._loop.remove_writer(descriptor)
        self._loop.remove_reader(self.engine.news_fd)
        self.engine.close()
