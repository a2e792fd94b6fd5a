"""The control channel's protocol: signalling sessions of two connected peers on one stream, sans-I/O.

The stream is a sequence of frames: a length in two bytes, the greatest first, and so many bytes of MessagePack. The
side that has opened the stream begins with `Hello`. Each frame after that belongs to a session: either side begins one
by saying an `Opening` under a number that it has not used before, the client even ones and the server odd ones, so that
both can do so at once. What comes for a session that is over here is late, and ignored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from quice.ice import Budget
from quice.signal import messages
from quice.signal.messages import MAX_MESSAGE, Message, Opening, SignalDecodeError

VERSION = 1
MAX_SESSIONS = 8
"""Sessions that one side may have begun and that are not over."""
_LENGTH = 2
MAX_FRAME = MAX_MESSAGE + 64
_MAX_SESSION = 1 << 53
_BURST = 512
"""Frames that may come at once: several sessions with all the candidates that an agent takes."""
_RATE = 16.0
"""Frames a second that may come in the long run."""


class _Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


class Hello(_Frame, frozen=True, kw_only=True, tag="hello"):
    """The first frame: the stream is the control channel, of this version."""

    version: int


class Say(_Frame, frozen=True, kw_only=True, tag="say"):
    """One encoded signalling message of a session."""

    session: int
    body: bytes


class End(_Frame, frozen=True, kw_only=True, tag="end"):
    """The session is over; its number is not used again."""

    session: int


Frame = Hello | Say | End

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Frame)


def encode(frame: Frame) -> bytes:
    """The frame as it stands in the stream."""
    data = _encoder.encode(frame)
    return len(data).to_bytes(_LENGTH, "big") + data


def decode(data: bytes) -> Frame:
    """Read a frame, without its length. Raises `SignalDecodeError` for anything that is not a correct one."""
    try:
        frame: Frame = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise SignalDecodeError(f"not a frame of the control channel: {error}") from error
    match frame:
        case Hello(version=version):
            correct = version >= 1
        case Say(session=session) | End(session=session):
            correct = 0 <= session < _MAX_SESSION
    if not correct:
        raise SignalDecodeError(f"a number out of range in {type(frame).__name__}")
    return frame


class FrameReader:
    """Finds the frames in what comes of the stream, in pieces of any size."""

    def __init__(self) -> None:
        self._rest = b""

    def receive(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete now. Raises `SignalDecodeError`, after which nothing can be read any more."""
        data = self._rest + data
        start = 0
        while len(data) >= start + _LENGTH:
            length = int.from_bytes(data[start : start + _LENGTH], "big")
            if length > MAX_FRAME:
                raise SignalDecodeError(f"a frame of {length} bytes; {MAX_FRAME} are allowed")
            end = start + _LENGTH + length
            if len(data) < end:
                break
            yield decode(data[start + _LENGTH : end])
            start = end
        self._rest = data[start:]


@dataclass(frozen=True)
class Begun:
    """The peer has begun a session; its first message follows as `Said`."""

    session: int


@dataclass(frozen=True)
class Said:
    """A message has come in a session that is open."""

    session: int
    message: Message
    size: int


@dataclass(frozen=True)
class Ended:
    """The peer has ended a session."""

    session: int


Event = Begun | Said | Ended


class Sessions:
    """Which sessions there are, on one side of a control channel. Times are seconds on the caller's clock.

    What it returns as bytes goes into the stream, in this order.
    """

    __slots__ = ("_budget", "_is_client", "_next", "_next_of_peer", "_open", "_reader", "_welcomed")

    def __init__(self, *, is_client: bool) -> None:
        self._is_client = is_client
        self._next, self._next_of_peer = (0, 1) if is_client else (1, 0)
        self._open: set[int] = set()
        self._reader = FrameReader()
        # RFC 9000 §2.1 lets only the server wait for the stream to be opened: there is one hello, the client's.
        self._welcomed = is_client
        self._budget = Budget(_BURST, _RATE)

    def hello(self) -> bytes:
        """What the client's half of the stream begins with."""
        return encode(Hello(version=VERSION))

    def begin(self) -> int | None:
        """Begin a session; its first message tells the peer. None while the peer would take no more of ours."""
        if self._count_of(self._next) >= MAX_SESSIONS:
            return None
        session = self._next
        self._next += 2
        self._open.add(session)
        return session

    def say(self, session: int, message: Message) -> bytes:
        """Say something in an open session. Raises `ValueError` for a message that is too large."""
        return encode(Say(session=session, body=messages.encode(message)))

    def end(self, session: int) -> bytes:
        """End a session, which either side may have begun; nothing is left to say if it is over."""
        if session not in self._open:
            return b""
        self._open.discard(session)
        return encode(End(session=session))

    def receive(self, data: bytes, now: float) -> Iterator[Event]:
        """Take in what has come of the stream. Raises `SignalDecodeError` when the peer breaks the rules; the channel
        is of no use then."""
        for frame in self._reader.receive(data):
            self._spend(now)
            match frame:
                case Hello():
                    self._welcome(frame)
                case _ if not self._welcomed:
                    raise SignalDecodeError("the first frame is no hello")
                case Say():
                    yield from self._on_said(frame)
                case End():
                    if frame.session in self._open:
                        self._open.discard(frame.session)
                        yield Ended(frame.session)

    def _welcome(self, hello: Hello) -> None:
        if self._welcomed:
            raise SignalDecodeError("a hello where none belongs")
        self._welcomed = True

    def _on_said(self, frame: Say) -> Iterator[Event]:
        message = messages.decode(frame.body)
        session = frame.session
        if session not in self._open:
            is_new = self._is_of_peer(session) and session >= self._next_of_peer and isinstance(message, Opening)
            if not is_new:
                return
            if self._count_of(session) >= MAX_SESSIONS:
                raise SignalDecodeError(f"more than {MAX_SESSIONS} sessions at once")
            self._next_of_peer = session + 2
            self._open.add(session)
            yield Begun(session)
        yield Said(session, message, len(frame.body))

    def _is_of_peer(self, session: int) -> bool:
        return session % 2 == (1 if self._is_client else 0)

    def _count_of(self, session: int) -> int:
        """How many sessions are open that the same side has begun as this one."""
        return sum(1 for each in self._open if each % 2 == session % 2)

    def _spend(self, now: float) -> None:
        if not self._budget.take(1, now):
            raise SignalDecodeError("too much is said")
