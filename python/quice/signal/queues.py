"""Signalling between two endpoints of one process: for tests, and the shortest example of the interface."""

from __future__ import annotations

import asyncio

from quice.errors import SignallingClosedError
from quice.signal.messages import Message, decode, encode


class QueueSignalling:
    """One side of a pair of queues. Messages travel as bytes, as they would between two machines."""

    def __init__(self, outgoing: asyncio.Queue[bytes | None], incoming: asyncio.Queue[bytes | None]) -> None:
        self._outgoing = outgoing
        self._incoming = incoming

    async def send(self, message: Message) -> None:
        await self._outgoing.put(encode(message))

    async def receive(self) -> Message:
        data = await self._incoming.get()
        if data is None:
            self._incoming.put_nowait(None)
            raise SignallingClosedError
        return decode(data)

    async def close(self) -> None:
        for queue in (self._outgoing, self._incoming):
            queue.put_nowait(None)


def signalling_pair() -> tuple[QueueSignalling, QueueSignalling]:
    """Two ends of one session: what one sends, the other receives."""
    there: asyncio.Queue[bytes | None] = asyncio.Queue()
    back: asyncio.Queue[bytes | None] = asyncio.Queue()
    return QueueSignalling(there, back), QueueSignalling(back, there)
