"""What turns a sans-I/O machine on the event loop: the same for every one of them (see `quice.wire`)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from quice.wire import Address, Transmit

E_co = TypeVar("E_co", covariant=True)
E = TypeVar("E")


class Machine(Protocol[E_co]):
    """The contract that all machines follow."""

    def receive(self, data: bytes, source: Address, destination: Address, now: float) -> bool: ...
    def timeout(self) -> float | None: ...
    def handle_timeout(self, now: float) -> None: ...
    def transmits(self) -> Iterator[Transmit]: ...
    def events(self) -> Iterator[E_co]: ...


class Driver(Generic[E]):
    """Drives one machine: its datagrams go to `send`, its events to `handle`, its timers to the event loop."""

    def __init__(self, machine: Machine[E], send: Callable[[Transmit], None], handle: Callable[[E], None]) -> None:
        self._machine = machine
        self._send = send
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        # uvloop's handle of a call that is due at once can't tell when that is.
        self._due: float | None = None
        self._closed = False

    def receive(self, data: bytes, source: Address, destination: Address) -> bool:
        """Feed a datagram; returns whether it was for the machine."""
        if self._closed or not self._machine.receive(data, source, destination, self._loop.time()):
            return False
        self.step()
        return True

    def step(self) -> None:
        """Let the machine do what is due and carry out what it wants: to be called after every input."""
        if self._closed:
            return
        machine, now = self._machine, self._loop.time()
        while (due := machine.timeout()) is not None and due <= now:
            machine.handle_timeout(now)
        for transmit in machine.transmits():
            self._send(transmit)
        for event in machine.events():
            self._handle(event)
        self._set_timer(machine.timeout())

    def _set_timer(self, when: float | None) -> None:
        if self._timer is not None:
            if self._due == when and not self._timer.cancelled():
                return
            self._timer.cancel()
        self._due = when
        self._timer = self._loop.call_at(when, self._on_timer) if when is not None and not self._closed else None

    def _on_timer(self) -> None:
        self._timer = None
        self.step()

    def close(self) -> None:
        """Stop: nothing is sent or handled any more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
