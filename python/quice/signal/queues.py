"""Signalling between two endpoints of one process: for tests, and the shortest example of the interface."""

from __future__ import annotations

import asyncio

from quice.errors import SignallingClosedError
from quice.signal.messages import Message, decode, encode


class QueueSignalling:
    """One side of a pair of queues. Messages travel as bytes, as they would between two machines."""

    def __init__(self) -> None:
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._closed = False
        self._other = self

    async def send(self, message: Message) -> None:
        """See `Signalling`."""
        if self._closed:
            raise SignallingClosedError
        self._other._incoming.put_nowait(encode(message))

    async def receive(self) -> Message:
        """See `Signalling`. What was sent before the end still comes."""
        data = await self._incoming.get()
        if data is None:
            self._incoming.put_nowait(None)
            raise SignallingClosedError
        return decode(data)

    async def close(self) -> None:
        """See `Signalling`. It ends the session for both sides."""
        for side in (self, self._other):
            if not side._closed:
                side._closed = True
                side._incoming.put_nowait(None)


def signalling_pair() -> tuple[QueueSignalling, QueueSignalling]:
    """Two ends of one session: what one sends, the other receives."""
    one, other = QueueSignalling(), QueueSignalling()
    one._other, other._other = other, one
    return one, other
