"""Connections to the rendezvous that have not registered: what each may cost, and all of them together."""

from __future__ import annotations

from typing import Protocol

MOST = 8192
"""How many there may be. Who registers does so within two round trips; beyond that many, the oldest gives way."""
MAX_OPENING = 16 << 10
"""Bytes of an HTTP request that asks for a WebSocket, which takes a few hundred. The library would keep a megabyte."""


class Stranger(Protocol):
    """A connection."""

    def abort(self) -> None:
        """End it, without a word."""


class Strangers:
    """Who is connected and has not registered, the oldest first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._received: dict[Stranger, int] = {}

    def __len__(self) -> int:
        return len(self._received)

    def add(self, stranger: Stranger) -> None:
        """Somebody has connected."""
        if len(self._received) >= self._most:
            oldest = next(iter(self._received))
            self.leave(oldest)
            oldest.abort()
        self._received[stranger] = 0

    def leave(self, stranger: Stranger) -> None:
        """This one has registered, or is gone."""
        self._received.pop(stranger, None)

    def takes(self, stranger: Stranger, count: int) -> bool:
        """Whether so many bytes more are taken from one who has not opened a WebSocket yet."""
        received = self._received.get(stranger, 0) + count
        if stranger in self._received:
            self._received[stranger] = received
        return received <= MAX_OPENING
