"""Connections to the rendezvous that have not registered: what each may cost, and all of them together."""

from __future__ import annotations

import asyncio

MOST = 8192
"""How many there may be. Who registers does so within two round trips; beyond that many, the oldest gives way."""
MAX_OPENING = 16 << 10
"""Bytes of an HTTP request that asks for a WebSocket, which takes a few hundred. The library would keep a megabyte."""


class Strangers:
    """Who is connected and has not registered, the oldest first."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._received: dict[asyncio.Transport, int] = {}

    def __len__(self) -> int:
        return len(self._received)

    def add(self, transport: asyncio.Transport) -> None:
        """Somebody has connected."""
        if len(self._received) >= self._most:
            oldest = next(iter(self._received))
            self.leave(oldest)
            oldest.abort()
        self._received[transport] = 0

    def leave(self, transport: asyncio.Transport) -> None:
        """This one has registered, or is gone."""
        self._received.pop(transport, None)

    def takes(self, transport: asyncio.Transport, count: int) -> bool:
        """Whether so many bytes more are taken from one who has not opened a WebSocket yet."""
        received = self._received.get(transport, 0) + count
        if transport in self._received:
            self._received[transport] = received
        return received <= MAX_OPENING
