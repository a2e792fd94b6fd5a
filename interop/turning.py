"""Our TURN client on real sockets, played step by step: no event loop, so that a test reads from top to bottom."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

from quice.stun.auth import LongTerm
from quice.turn import AddressFamilies, Client, Event
from quice.wire import Address

EventT = TypeVar("EventT")
PATIENCE = 10.0


class Turning:
    """A client over UDP, and what it has told."""

    def __init__(
        self,
        server: Address,
        credentials: LongTerm,
        *,
        families: AddressFamilies = AddressFamilies.IPV4,
        lifetime: float = 600.0,
        local_port: int = 0,
        flush: bool = True,
    ) -> None:
        """`flush`: whether its first request goes out at once."""
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", local_port))
        source = Address(*self.socket.getsockname()[:2])
        self.client = Client(
            server, source, credentials, random.SystemRandom(), time.monotonic(), families=families, lifetime=lifetime
        )
        self.told: list[Event] = []
        if flush:
            self.flush()

    def __enter__(self) -> Turning:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close(time.monotonic())
        self.flush()
        self.socket.close()

    def flush(self) -> None:
        """Send what the client has to send, and take what it tells."""
        for transmit in self.client.transmits():
            self.socket.sendto(transmit.data, tuple(transmit.destination))
        self.told += self.client.events()

    def step(self, until: float) -> None:
        """Wait for a datagram or the client's timer, until a time at most."""
        self.flush()
        due = self.client.timeout()
        wait = (until if due is None else min(until, due)) - time.monotonic()
        self.socket.settimeout(max(wait, 0.001))
        try:
            data, source = self.socket.recvfrom(1 << 16)
        except TimeoutError:
            pass
        else:
            self.client.receive(data, Address(*source[:2]), self.client.source, time.monotonic())
        self.client.handle_timeout(time.monotonic())
        self.flush()

    def until(self, done: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
        """Go on until something is so. Raises `TimeoutError`."""
        limit = time.monotonic() + patience
        while not done():
            if time.monotonic() >= limit:
                raise TimeoutError(f"{what}: not within {patience} s; told were {self.told}")
            self.step(limit)

    def settle(self) -> None:
        """Wait until the server has done all that it was asked so far: it answers one request after the other."""
        asked = time.monotonic()
        self.client.check(asked)
        self.until(lambda: self.client.heard > asked, "an answer")

    def wait_for(self, kind: type[EventT]) -> EventT:
        """The next event of this class; others before it are dropped. Raises `TimeoutError`."""
        found: list[EventT] = []

        def look() -> bool:
            while self.told and not found:
                event = self.told.pop(0)
                if isinstance(event, kind):
                    found.append(event)
            return bool(found)

        self.until(look, kind.__name__)
        return found[0]
