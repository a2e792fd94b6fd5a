"""Signalling of one session over several ways at once, for when it is not known which of them still works."""

from __future__ import annotations

import asyncio
import contextlib

from quice.errors import SignallingClosedError, SignallingError
from quice.signal.interface import Signalling
from quice.signal.messages import Bye, Message, SignalDecodeError, encode


class JointSignalling:
    """What is sent goes out on every way there is; what comes first on any of them counts, once.

    A way that is added later carries all that was sent before, too. It is over when no way is left.
    """

    def __init__(self, *ways: Signalling) -> None:
        self._ways: dict[Signalling, asyncio.Task[None]] = {}
        self._sent: list[Message] = []
        self._received: set[bytes] = set()
        self._incoming: asyncio.Queue[Message | SignallingError] = asyncio.Queue()
        self._closed = False
        for way in ways:
            self._ways[way] = asyncio.create_task(self._receive_from(way), name="quice joint signalling")

    async def add(self, way: Signalling) -> None:
        """Use this one, too."""
        if self._closed:
            await way.close()
            return
        self._ways[way] = asyncio.create_task(self._receive_from(way), name="quice joint signalling")
        for message in list(self._sent):
            await self._send_on(way, message)

    def has(self, way: Signalling) -> bool:
        """Whether this one is still in use."""
        return way in self._ways

    async def send(self, message: Message) -> None:
        """See `Signalling`. Raises `SignallingError` when no way is left."""
        self._sent.append(message)
        for way in list(self._ways):
            await self._send_on(way, message)
        if not self._ways:
            raise SignallingClosedError

    async def receive(self) -> Message:
        """See `Signalling`."""
        message = await self._incoming.get()
        if isinstance(message, SignallingError):
            self._incoming.put_nowait(message)
            raise message
        return message

    async def close(self) -> None:
        """See `Signalling`."""
        self._closed = True
        ways, self._ways = self._ways, {}
        for way, task in ways.items():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await way.close()
        self._incoming.put_nowait(SignallingClosedError())

    async def _send_on(self, way: Signalling, message: Message) -> None:
        try:
            await way.send(message)
        except SignallingError as error:
            await self._give_up(way, error)

    async def _receive_from(self, way: Signalling) -> None:
        try:
            while True:
                message = await way.receive()
                if isinstance(message, Bye) and len(self._ways) > 1:
                    # The peer has had enough of this way, since it has another.
                    continue
                data = encode(message)
                if data not in self._received:
                    self._received.add(data)
                    self._incoming.put_nowait(message)
        except (SignallingError, SignalDecodeError) as error:
            ended = error if isinstance(error, SignallingError) else SignallingError(str(error))
            await self._give_up(way, ended)

    async def _give_up(self, way: Signalling, error: SignallingError) -> None:
        task = self._ways.pop(way, None)
        if task is None:
            return
        if task is not asyncio.current_task():
            task.cancel()
        with contextlib.suppress(SignallingError):
            await way.close()
        if not self._ways and not self._closed:
            self._incoming.put_nowait(error)
