"""Simulated TCP: reliable byte streams over the simulated internet's packets, as asyncio transports.

A stream is segments with sequence numbers, cumulative acknowledgements, a window and a retransmission timer, in the
proportions of RFC 9293 and RFC 6298, but with a format of its own and without congestion control: enough for signalling
to suffer loss, delay, NATs, cut links and dead servers as it would in life.
"""

from __future__ import annotations

import asyncio
import enum
import errno
import itertools
import os
import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from quice.wire import Address

if TYPE_CHECKING:
    from quice.sim.clock import SimLoop

_MSS = 1400
_WINDOW = 256 << 10
_FIRST_RTO = 0.3
_MIN_RTO = 0.2
_MAX_RTO = 8.0
_PATIENCE = 60.0
"""Seconds without an answer after which a connection is given up (RFC 9293 §3.8.3 leaves them to us)."""
_CLOSING_PATIENCE = 5.0
"""Likewise, when nobody is interested in the connection any more."""
_LINGER = 60.0
"""Seconds for which a connection that was closed here first still acknowledges the peer's end (Linux's FIN-WAIT-2 and
TIME-WAIT)."""
_BURST = 10
"""Segments that one timeout sends again. Each that is acknowledged lets two more be (RFC 5681 §3.1, §3.5)."""
_HEADER = struct.Struct("!BIII")


class Flag(enum.IntFlag):
    """The control bits of a segment."""

    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


@dataclass
class _Sent:
    """A segment on its way. `end`: the sequence number after it."""

    end: int
    content: bytes
    flags: Flag
    at: float | None
    """When it was sent; None once it was sent again (Karn's rule, RFC 6298 §3)."""


class _State(enum.Enum):
    OPENING = "opening"
    OPEN = "open"
    LINGERING = "lingering"
    """Closed here, and the peer has all of it."""
    CLOSED = "closed"


class TcpTransport(asyncio.Transport):
    """One end of a connection. Use it as asyncio's own."""

    def __init__(
        self,
        loop: SimLoop,
        send: Callable[[bytes], None],
        forget: Callable[[], None],
        local: Address,
        remote: Address,
    ) -> None:
        """`send` takes a segment to the peer; `forget` is called when the connection is over."""
        super().__init__({"peername": tuple(remote), "sockname": tuple(local)})
        self._loop = loop
        self._send_packet = send
        self._forget = forget
        self._protocol: asyncio.BaseProtocol | None = None
        self._state = _State.OPENING
        self.opened: asyncio.Future[None] = loop.create_future()
        self._unsent: deque[bytes] = deque()
        self._unsent_bytes = 0
        self._unacked: deque[_Sent] = deque()
        self._next = 0
        self._acked = 0
        self._peer_edge = _WINDOW
        """Up to which sequence number the peer has room. It never takes room back; a late acknowledgement seems to."""
        self._received = 0
        self._early: dict[int, tuple[bytes, Flag]] = {}
        self._unread: deque[bytes] = deque()
        self._reading = True
        self._eof_sent = False
        self._eof_received = False
        self._peer_ended = False
        self._ended_first = False
        self._closing = False
        self._ack_due = False
        self._limits = (16 << 10, 64 << 10)
        self._paused_writer = False
        self._lost_edge = 0
        """Up to which sequence number all that is not acknowledged is taken for lost."""
        self._rto = self._measured_rto = _FIRST_RTO
        self._timer: asyncio.TimerHandle | None = None
        self._asked: float | None = None
        """Since when the peer, asked again, has not answered anything."""

    # What asyncio's protocols call.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.call_soon(self._hand_over)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        high = (64 << 10 if low is None else 4 * low) if high is None else high
        self._limits = (high // 4 if low is None else low, high)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._limits

    def get_write_buffer_size(self) -> int:
        return self._unsent_bytes

    def can_write_eof(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing or not data:
            return
        if self._eof_sent:
            raise RuntimeError("Cannot call write() after write_eof()")
        self._unsent.append(bytes(data))
        self._unsent_bytes += len(data)
        self._push()
        if self._unsent_bytes > self._limits[1] and not self._paused_writer:
            self._paused_writer = True
            cast("asyncio.Protocol", self._protocol).pause_writing()

    def write_eof(self) -> None:
        if not self._eof_sent:
            self._eof_sent = True
            self._ended_first = not self._peer_ended
            self._unsent.append(b"")
            self._push()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._unread.clear()
            self.write_eof()
            self._conclude()

    def abort(self) -> None:
        if self._state in (_State.OPENING, _State.OPEN):
            self._transmit(self._next, b"", Flag.RST)
            self._lose(None)

    # What the connection's machine calls.

    def begin(self) -> None:
        """Open the connection (SYN)."""
        self._queue(b"", Flag.SYN)

    def receive(self, segment: bytes) -> None:
        """Take in a segment from the peer."""
        if self._state is _State.CLOSED or len(segment) < _HEADER.size:
            return
        bits, sequence, acknowledged, window = _HEADER.unpack_from(segment)
        flags = Flag(bits)
        self._asked = None
        if flags & Flag.RST:
            number = errno.ECONNREFUSED if self._state is _State.OPENING else errno.ECONNRESET
            self._lose(OSError(number, os.strerror(number)))
            return
        self._take_acknowledgement(acknowledged if flags & Flag.ACK else 0, window)
        content = segment[_HEADER.size :]
        if content or flags & (Flag.SYN | Flag.FIN) or sequence < self._received:
            if content and self._closing and sequence >= self._received:
                # RFC 9293 §3.10.7.1: data for which there is no reader any more.
                self._transmit(self._next, b"", Flag.RST)
                self._lose(None)
                return
            self._acknowledge_soon()
            if sequence >= self._received:
                self._early.setdefault(sequence, (content, flags))
            self._take_in_order()
        self._push()
        self._conclude()

    def _take_acknowledgement(self, acknowledged: int, window: int) -> None:
        self._peer_edge = max(self._peer_edge, acknowledged + window)
        if acknowledged <= self._acked:
            return
        self._acked = acknowledged
        arrived: list[_Sent] = []
        while self._unacked and self._unacked[0].end <= acknowledged:
            arrived.append(self._unacked.popleft())
        # Those that waited for one which was lost say nothing of the round trip either.
        times = [sent.at for sent in arrived if sent.at is not None]
        if times and len(times) == len(arrived):
            self._measured_rto = min(max(_MIN_RTO, 2 * (self._loop.time() - times[-1])), _MAX_RTO)
        self._rto = self._measured_rto
        lost = itertools.takewhile(lambda sent: sent.end <= self._lost_edge, self._unacked)
        not_again = (sent for sent in lost if sent.at is not None)
        self._send_again(itertools.islice(not_again, 2 * len(arrived)))
        self._set_timer()

    def _send_again(self, segments: Iterable[_Sent]) -> None:
        for sent in list(segments):
            sent.at = None
            self._transmit(sent.end - _length(sent.content, sent.flags), sent.content, sent.flags)

    def _take_in_order(self) -> None:
        while (found := self._early.pop(self._received, None)) is not None:
            content, flags = found
            self._received += _length(content, flags)
            if flags & Flag.SYN:
                self._open()
            if content:
                self._unread.append(content)
            if flags & Flag.FIN:
                self._eof_received = self._peer_ended = True
        self._hand_over()

    def _open(self) -> None:
        self._state = _State.OPEN
        if not self.opened.done():
            self.opened.set_result(None)

    def _hand_over(self) -> None:
        """Give the protocol what has come for it."""
        protocol = self._protocol
        if protocol is None or self._state is not _State.OPEN or self._closing:
            return
        had = bool(self._unread)
        while self._unread and self._reading:
            data = self._unread.popleft()
            if isinstance(protocol, asyncio.BufferedProtocol):
                _feed(protocol, data)
            else:
                cast("asyncio.Protocol", protocol).data_received(data)
        if had:
            # The window has grown.
            self._acknowledge_soon()
        if self._eof_received and not self._unread and self._reading and not self._closing:
            self._eof_received = False
            if not cast("asyncio.Protocol", protocol).eof_received():
                self.close()

    def attach(self, protocol: asyncio.BaseProtocol) -> None:
        """The connection is open: its protocol begins."""
        self.set_protocol(protocol)
        protocol.connection_made(self)
        if self._state is _State.CLOSED:
            # The peer has reset it meanwhile.
            self._dismiss(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))
        else:
            self._loop.call_soon(self._hand_over)

    def _push(self) -> None:
        """Send what the peer's window allows."""
        if self._state is not _State.OPEN:
            return
        while self._unsent:
            room = self._peer_edge - self._next
            piece = self._unsent[0]
            if piece and room <= 0:
                break
            size = min(len(piece), _MSS, room)
            if size < len(piece):
                self._unsent[0] = piece[size:]
            else:
                self._unsent.popleft()
            self._unsent_bytes -= size
            self._queue(piece[:size], Flag.ACK if piece else Flag.ACK | Flag.FIN)
        if self._paused_writer and self._unsent_bytes <= self._limits[0] and self._protocol is not None:
            self._paused_writer = False
            cast("asyncio.Protocol", self._protocol).resume_writing()
        if self._unsent and self._timer is None:
            self._set_timer()

    def _queue(self, content: bytes, flags: Flag) -> None:
        sequence = self._next
        self._next += _length(content, flags)
        self._unacked.append(_Sent(self._next, content, flags, self._loop.time()))
        self._transmit(sequence, content, flags)
        if self._timer is None:
            self._set_timer()

    def _transmit(self, sequence: int, content: bytes, flags: Flag) -> None:
        window = max(0, _WINDOW - sum(map(len, self._unread)))
        if self._received:
            flags |= Flag.ACK
            self._ack_due = False
        try:
            self._send_packet(_HEADER.pack(flags, sequence, self._received, window) + content)
        except OSError as error:
            # No route: who opens a connection is told, one that is open waits for a better time.
            if self._state is _State.OPENING:
                self._lose(error)

    def _acknowledge_soon(self) -> None:
        if not self._ack_due:
            self._ack_due = True
            self._loop.call_soon(self._acknowledge)

    def _acknowledge(self) -> None:
        if self._ack_due and self._state is not _State.CLOSED:
            self._transmit(self._next, b"", Flag.ACK)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._unacked or self._unsent:
            self._timer = self._loop.call_later(self._rto, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        self._asked = self._asked if self._asked is not None else now
        if now - self._asked > (_CLOSING_PATIENCE if self._closing else _PATIENCE):
            self._lose(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
            return
        self._rto = min(2 * self._rto, _MAX_RTO)
        self._lost_edge = self._next
        self._send_again(itertools.islice(self._unacked, _BURST))
        if self._state is _State.CLOSED:
            return
        if not self._unacked:
            # RFC 9293 §3.8.6.1: the peer's window is shut, and what opens it may have been lost. Something that it has
            # already makes it say what it has.
            self._transmit(self._next - 1, b"", Flag.ACK)
        self._set_timer()

    def _conclude(self) -> None:
        """What is closed here is over for its protocol once all is on its way, and for the peer once it has it."""
        if not self._closing or self._unsent or self._state is not _State.OPEN:
            return
        self._dismiss(None)
        if self._unacked:
            return
        if self._peer_ended and not self._ended_first:
            self._lose(None)
        else:
            self._state = _State.LINGERING
            self._timer = self._loop.call_later(_LINGER, self._lose, None)

    def _dismiss(self, error: Exception | None) -> None:
        """The connection is over for its protocol."""
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, error)
            self._protocol = None

    def _lose(self, error: Exception | None) -> None:
        if self._state is _State.CLOSED:
            return
        self._acknowledge()
        self._state = _State.CLOSED
        self._closing = True
        self._unsent.clear()
        self._unacked.clear()
        if self._timer is not None:
            self._timer.cancel()
        if not self.opened.done():
            self.opened.set_exception(error or ConnectionAbortedError())
            self.opened.exception()
        self._dismiss(error)
        self._forget()


def _length(content: bytes, flags: Flag) -> int:
    """How much a segment moves the sequence number: SYN and FIN count for one (RFC 9293 §3.4)."""
    return len(content) + bool(flags & Flag.SYN) + bool(flags & Flag.FIN)


def _feed(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    view = memoryview(data)
    while view:
        buffer = memoryview(protocol.get_buffer(len(view))).cast("B")
        count = min(len(buffer), len(view))
        buffer[:count] = view[:count]
        view = view[count:]
        protocol.buffer_updated(count)


def reset_for(segment: bytes) -> bytes | None:
    """The answer to a segment that is of no connection (RFC 9293 §3.10.7.1); None to one that is a reset itself."""
    return None if not segment or segment[0] & Flag.RST else _HEADER.pack(Flag.RST, 0, 0, 0)


def opens(segment: bytes) -> bool:
    """Whether a segment asks for a new connection."""
    return bool(segment) and segment[0] & (Flag.SYN | Flag.ACK) == Flag.SYN
