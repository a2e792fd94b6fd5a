"""The control channel of a connection: signalling sessions inside it, out of the application's sight.

It is the client's first bidirectional stream, where both sides are quice (`quice.alpn`); what is said there,
`quice.signal.inband` knows. A peer that breaks the rules loses the channel, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from quice import _native
from quice.errors import SignallingClosedError, StreamStoppedError
from quice.signal.inband import Begun, Ended, Event, Said, Sessions
from quice.signal.messages import Message, SignalDecodeError
from quice.stream import Stream

if TYPE_CHECKING:
    from quice.connection import Connection

logger = logging.getLogger(__name__)

CONTROL_STREAMS = 1
"""Bidirectional streams of a client's that are not the application's."""
_STREAM = 0
_READ = 1 << 16
_PRIORITY = 1 << 20
"""Before all that an application sends, unless it insists."""
_BROKEN = 0x73
"""The code with which a stream is given up that is no control channel."""
_MAX_WAITING = 1 << 16
"""Bytes of one session's messages that wait to be received."""
_WRITE_LIMIT = 1 << 16
"""Bytes that may wait to be sent before `send` waits."""


class InbandSignalling:
    """One session over the connection itself."""

    def __init__(self, channel: ControlChannel, session: int | None) -> None:
        """`session`: its number, None for one that can't be."""
        self._channel = channel
        self._session = session
        self._incoming: deque[Said] = deque()
        self._waiting = 0
        self._is_over = session is None
        self._receiver: asyncio.Future[None] | None = None

    async def send(self, message: Message) -> None:
        """See `Signalling`. Raises `ValueError` for a message that is too large."""
        if self._is_over or self._session is None:
            raise SignallingClosedError
        await self._channel._say(self._session, message)

    async def receive(self) -> Message:
        """See `Signalling`. What was sent before the end still comes. For one task at a time."""
        while not self._incoming:
            if self._is_over:
                raise SignallingClosedError
            self._receiver = self._channel._loop.create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None
        said = self._incoming.popleft()
        self._waiting -= said.size
        return said.message

    async def close(self) -> None:
        """See `Signalling`. It ends the session for both sides."""
        if self._session is not None:
            self._channel._end(self._session)
        self._incoming.clear()
        self._finish()

    def _take(self, said: Said) -> bool:
        """A message has come; returns whether there was room for it."""
        self._waiting += said.size
        if self._waiting > _MAX_WAITING:
            return False
        self._incoming.append(said)
        self._wake()
        return True

    def _finish(self) -> None:
        """Nothing more will come."""
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)


class ControlChannel:
    """One side of a connection's control channel, for as long as the connection lives. It never raises."""

    __slots__ = (
        "_drained",
        "_is_over",
        "_loop",
        "_on_session",
        "_open",
        "_outgoing",
        "_sessions",
        "_stream",
        "_unclaimed",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, *, is_client: bool) -> None:
        self._loop = loop
        self._sessions = Sessions(is_client=is_client)
        self._open: dict[int, InbandSignalling] = {}
        self._unclaimed: list[InbandSignalling] = []
        self._on_session: Callable[[InbandSignalling], None] | None = None
        self._stream: _ControlStream | None = None
        self._outgoing = self._sessions.hello() if is_client else b""
        self._drained: list[asyncio.Future[None]] = []
        self._is_over = False

    def open(self) -> InbandSignalling:
        """Begin a session; the first message, an offer, tells the peer. When the channel can't carry it, sending
        raises `SignallingClosedError`."""
        number = None if self._is_over else self._sessions.begin()
        signalling = InbandSignalling(self, number)
        if number is not None:
            self._open[number] = signalling
        return signalling

    def on_session(self, callback: Callable[[InbandSignalling], None]) -> None:
        """Call this with each session that the peer begins, and now with those that it has begun already."""
        self._on_session = callback
        unclaimed, self._unclaimed = self._unclaimed, []
        for signalling in unclaimed:
            callback(signalling)

    def takes(self, connection: Connection, stream: int) -> bool:
        """Whether a stream that has just been opened is the channel's: then it is no stream of the application's."""
        if stream != _STREAM:
            return False
        if not self._is_over:
            self._stream = _ControlStream(self, connection, stream)
            connection._streams[stream] = weakref.ref(self._stream)
            with contextlib.suppress(_native.StreamClosed, _native.ConnectionGone):
                self._stream._native.set_priority(stream, _PRIORITY)
            self._flush()
            self._read()
        return True

    def close(self) -> None:
        """The connection is over."""
        self._is_over = True
        self._stream = None
        self._outgoing = b""
        self._unclaimed.clear()
        while self._open:
            self._open.popitem()[1]._finish()
        self._on_drained()

    async def _say(self, session: int, message: Message) -> None:
        self._write(self._sessions.say(session, message))
        while len(self._outgoing) > _WRITE_LIMIT:
            drained: asyncio.Future[None] = self._loop.create_future()
            self._drained.append(drained)
            await drained
        if self._is_over:
            raise SignallingClosedError

    def _end(self, session: int) -> None:
        self._open.pop(session, None)
        if not self._is_over:
            self._write(self._sessions.end(session))

    def _write(self, data: bytes) -> None:
        self._outgoing += data
        self._flush()

    def _flush(self) -> None:
        if self._stream is None or not self._outgoing:
            return
        try:
            taken = self._stream._native.write(_STREAM, self._outgoing, 0)
        except (_native.StreamStopped, _native.StreamClosed, _native.ConnectionGone) as error:
            self._break(error)
            return
        self._outgoing = self._outgoing[taken:]
        if taken:
            self._stream.connection._pump.wake()
        if len(self._outgoing) <= _WRITE_LIMIT:
            self._on_drained()

    def _on_drained(self) -> None:
        drained, self._drained = self._drained, []
        for waiter in drained:
            if not waiter.done():
                waiter.set_result(None)

    def _read(self) -> None:
        """Read all that is there: then the engine tells when there is more."""
        try:
            while self._stream is not None:
                data = self._stream._native.read(_STREAM, _READ)
                if data is None:
                    return
                self._stream.connection._pump.wake()
                if not data:
                    raise SignalDecodeError("the peer has ended the stream")
                for event in self._sessions.receive(data, self._loop.time()):
                    self._on_event(event)
        except (SignalDecodeError, _native.StreamReset, _native.StreamClosed, _native.ConnectionGone) as error:
            self._break(error)

    def _on_event(self, event: Event) -> None:
        match event:
            case _ if self._is_over:
                # Who was told of the one before has closed the connection.
                return
            case Begun(session):
                self._open[session] = InbandSignalling(self, session)
                self._unclaimed.append(self._open[session])
            case Said(session):
                if not self._open[session]._take(event):
                    self._open[session]._finish()
                    self._end(session)
                elif self._on_session is not None and self._unclaimed:
                    self.on_session(self._on_session)
            case Ended(session):
                self._open.pop(session)._finish()

    def _break(self, error: Exception) -> None:
        """The channel can't go on; the connection does."""
        stream = self._stream
        self.close()
        if stream is not None:
            logger.debug("%r: no control channel any more: %s", stream.connection, error)
            stream.give_up()


class _ControlStream(Stream):
    """The stream that a channel is on: it tells the channel, and no task has to wait."""

    def __init__(self, channel: ControlChannel, connection: Connection, stream: int) -> None:
        super().__init__(connection, connection._native, stream)
        self._channel = channel

    def give_up(self) -> None:
        """Neither read nor write it any more, and tell the peer so."""
        self.reset(_BROKEN)
        self.stop(_BROKEN)
        self.connection._streams.pop(self.id, None)

    def __del__(self) -> None:
        # It lives as long as the connection, which takes the engine's half with it, or has been given up.
        pass

    def _on_readable(self) -> None:
        self._channel._read()

    def _on_writable(self) -> None:
        self._channel._flush()

    def _on_stopped(self) -> None:
        self._channel._break(StreamStoppedError(0))

    def _on_connection_closed(self) -> None:
        self._channel.close()
