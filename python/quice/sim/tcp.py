"""TCP for simulated machines: reliable byte streams over the simulated internet's packets, as asyncio transports.

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
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from quice.sim.packet import Packet, Protocol
from quice.wire import Address

if TYPE_CHECKING:
    from quice.sim.clock import SimLoop
    from quice.sim.host import Binding
    from quice.sim.machine import SimMachine

_MSS = 1400
_WINDOW = 256 << 10
_FIRST_RTO = 0.3
_MIN_RTO = 0.2
_MAX_RTO = 8.0
_PATIENCE = 60.0
"""Seconds without an answer after which a connection is given up (RFC 9293 §3.8.3 leaves them to us)."""
_CLOSING_PATIENCE = 5.0
"""Likewise, when nobody is interested in the connection any more."""
_BURST = 10
"""Segments that one timeout sends again."""
_HEADER = struct.Struct("!BIII")


class _Flag(enum.IntFlag):
    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


@dataclass
class _Sent:
    """A segment on its way. `end`: the sequence number after it."""

    end: int
    content: bytes
    flags: _Flag
    at: float | None
    """When it was sent; None once it was sent again (Karn's rule, RFC 6298 §3)."""


class _State(enum.Enum):
    OPENING = "opening"
    OPEN = "open"
    CLOSED = "closed"


class SimSocket:
    """What a transport shows as its socket, and a machine's `listen` gives to `loop.create_server`."""

    def __init__(self, bindings: list[Binding]) -> None:
        self.bindings = bindings
        self.family = socket.AF_INET6 if ":" in bindings[0].local.host else socket.AF_INET
        self.type = socket.SOCK_STREAM
        self.proto = socket.IPPROTO_TCP

    def getsockname(self) -> tuple[str, int]:
        return self.bindings[0].local

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *_: object) -> None:
        """A simulated TCP has no options."""

    def close(self) -> None:
        for binding in self.bindings:
            binding.close()


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
        self._peer_window = _WINDOW
        self._received = 0
        self._early: dict[int, tuple[bytes, _Flag]] = {}
        self._unread: deque[bytes] = deque()
        self._reading = True
        self._eof_sent = False
        self._eof_received = False
        self._closing = False
        self._ack_due = False
        self._limits = (16 << 10, 64 << 10)
        self._paused_writer = False
        self._rto = _FIRST_RTO
        self._timer: asyncio.TimerHandle | None = None
        self._heard = loop.time()

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
        if self._closing or self._eof_sent or not data:
            return
        self._unsent.append(bytes(data))
        self._unsent_bytes += len(data)
        self._push()
        if self._unsent_bytes > self._limits[1] and not self._paused_writer:
            self._paused_writer = True
            cast("asyncio.Protocol", self._protocol).pause_writing()

    def write_eof(self) -> None:
        if not self._eof_sent:
            self._eof_sent = True
            self._unsent.append(b"")
            self._push()

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self.write_eof()
            self._conclude()

    def abort(self) -> None:
        if self._state is not _State.CLOSED:
            self._transmit(self._next, b"", _Flag.RST)
            self._lose(None)

    # What the connection's machine calls.

    def begin(self) -> None:
        """Open the connection (SYN)."""
        self._queue(b"", _Flag.SYN)

    def receive(self, segment: bytes) -> None:
        """Take in a segment from the peer."""
        if self._state is _State.CLOSED or len(segment) < _HEADER.size:
            return
        bits, sequence, acknowledged, window = _HEADER.unpack_from(segment)
        flags = _Flag(bits)
        self._heard = self._loop.time()
        if flags & _Flag.RST:
            opening = self._state is _State.OPENING
            self._lose(ConnectionRefusedError() if opening else ConnectionResetError())
            return
        self._take_acknowledgement(acknowledged if flags & _Flag.ACK else 0, window)
        content = segment[_HEADER.size :]
        if content or flags & (_Flag.SYN | _Flag.FIN) or sequence < self._received:
            self._acknowledge_soon()
            if sequence >= self._received:
                self._early.setdefault(sequence, (content, flags))
            self._take_in_order()
        self._push()
        self._conclude()

    def _take_acknowledgement(self, acknowledged: int, window: int) -> None:
        self._peer_window = window
        if acknowledged <= self._acked:
            return
        self._acked = acknowledged
        while self._unacked and self._unacked[0].end <= acknowledged:
            sent = self._unacked.popleft()
            if sent.at is not None:
                self._rto = max(_MIN_RTO, 2 * (self._loop.time() - sent.at))
        self._set_timer()

    def _take_in_order(self) -> None:
        while (found := self._early.pop(self._received, None)) is not None:
            content, flags = found
            self._received += _length(content, flags)
            if flags & _Flag.SYN:
                self._open()
            if content:
                self._unread.append(content)
            if flags & _Flag.FIN:
                self._eof_received = True
        self._hand_over()

    def _open(self) -> None:
        self._state = _State.OPEN
        if not self.opened.done():
            self.opened.set_result(None)

    def _hand_over(self) -> None:
        """Give the protocol what has come for it."""
        protocol = self._protocol
        if protocol is None or self._state is not _State.OPEN:
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
        if self._eof_received and not self._unread and self._reading:
            self._eof_received = False
            if not cast("asyncio.Protocol", protocol).eof_received():
                self.close()

    def attach(self, protocol: asyncio.BaseProtocol) -> None:
        """The connection is open: its protocol begins."""
        self.set_protocol(protocol)
        protocol.connection_made(self)
        self._loop.call_soon(self._hand_over)

    def _push(self) -> None:
        """Send what the peer's window allows."""
        if self._state is not _State.OPEN:
            return
        while self._unsent:
            room = self._peer_window - (self._next - self._acked)
            piece = self._unsent[0]
            if piece and room <= 0:
                break
            size = min(len(piece), _MSS, room)
            if size < len(piece):
                self._unsent[0] = piece[size:]
            else:
                self._unsent.popleft()
            self._unsent_bytes -= size
            self._queue(piece[:size], _Flag.ACK if piece else _Flag.ACK | _Flag.FIN)
        if self._paused_writer and self._unsent_bytes <= self._limits[0] and self._protocol is not None:
            self._paused_writer = False
            cast("asyncio.Protocol", self._protocol).resume_writing()
        if self._unsent and self._timer is None:
            self._set_timer()

    def _queue(self, content: bytes, flags: _Flag) -> None:
        sequence = self._next
        self._next += _length(content, flags)
        self._unacked.append(_Sent(self._next, content, flags, self._loop.time()))
        self._transmit(sequence, content, flags)
        if self._timer is None:
            self._set_timer()

    def _transmit(self, sequence: int, content: bytes, flags: _Flag) -> None:
        window = max(0, _WINDOW - sum(map(len, self._unread)))
        if self._received:
            flags |= _Flag.ACK
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
            self._transmit(self._next, b"", _Flag.ACK)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._unacked or self._unsent:
            self._timer = self._loop.call_later(self._rto, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._loop.time() - self._heard > (_CLOSING_PATIENCE if self._closing else _PATIENCE):
            self._lose(TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)))
            return
        self._rto = min(2 * self._rto, _MAX_RTO)
        for sent in itertools.islice(self._unacked, _BURST):
            sent.at = None
            self._transmit(sent.end - _length(sent.content, sent.flags), sent.content, sent.flags)
        if not self._unacked:
            # RFC 9293 §3.8.6.1: the peer's window is shut, and what opens it may have been lost. Something that it has
            # already makes it say what it has.
            self._transmit(self._next - 1, b"", _Flag.ACK)
        self._set_timer()

    def _conclude(self) -> None:
        """A connection that is closed here is over once the peer has all of it."""
        if self._closing and not self._unsent and not self._unacked and self._state is _State.OPEN:
            self._lose(None)

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
        if self._protocol is not None:
            self._loop.call_soon(self._protocol.connection_lost, error)
        self._forget()


class SimServer(asyncio.AbstractServer):
    """A listener and the connections that came to it."""

    def __init__(
        self, loop: SimLoop, listener: SimSocket, protocol_factory: Callable[[], asyncio.BaseProtocol]
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._factory = protocol_factory
        self._open = True
        self._connections: dict[tuple[Address, Address], TcpTransport] = {}

    @property
    def sockets(self) -> tuple[SimSocket, ...]:
        return (self._listener,) if self._open else ()

    def is_serving(self) -> bool:
        return self._open

    async def start_serving(self) -> None:
        """It serves from the start."""

    async def serve_forever(self) -> None:
        await self._loop.create_future()

    def close(self) -> None:
        self._open = False
        self._release()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    async def wait_closed(self) -> None:
        """Connections end by their own account, as before Python 3.12."""

    def receive(self, binding: Binding, packet: Packet) -> None:
        """Take in a packet that came to the listening port."""
        key = packet.source, packet.destination
        transport = self._connections.get(key)
        if transport is None:
            flags = _Flag(packet.data[0]) if packet.data else _Flag.RST
            if flags & _Flag.RST:
                return
            if not (self._open and flags & _Flag.SYN):
                reset = _HEADER.pack(_Flag.RST, 0, 0, 0)
                binding.send(reset, packet.source, packet.destination.host)
                return
            self._accept(binding, packet)
        else:
            transport.receive(packet.data)

    def _accept(self, binding: Binding, packet: Packet) -> None:
        remote, local = packet.source, packet.destination

        def send(segment: bytes) -> None:
            binding.send(segment, remote, local.host)

        def forget() -> None:
            del self._connections[remote, local]
            self._release()

        def attach(opened: asyncio.Future[None]) -> None:
            if opened.exception() is None:
                transport.attach(self._factory())

        transport = self._connections[remote, local] = TcpTransport(self._loop, send, forget, local, remote)
        transport.opened.add_done_callback(attach)
        transport.receive(packet.data)
        transport.begin()

    def _release(self) -> None:
        if not self._open and not self._connections:
            self._listener.close()


class Tcp:
    """The TCP of one machine."""

    def __init__(self, loop: SimLoop, machine: SimMachine) -> None:
        self._loop = loop
        self._machine = machine
        self._servers: dict[int, SimServer] = {}

    def listen(self, host: str | None, port: int) -> SimSocket:
        """A listening socket; on all addresses, IPv4 and IPv6, if `host` is None. Raises `OSError`."""
        bindings: list[Binding] = []
        for each in (host,) if host is not None else ("0.0.0.0", "::"):
            bindings.append(self._bind(Address(each, port), bindings))
            port = bindings[0].local.port
        return SimSocket(bindings)

    def _bind(self, local: Address, bindings: list[Binding]) -> Binding:
        def deliver(packet: Packet) -> None:
            binding = next((b for b in bindings if (":" in b.local.host) == (":" in packet.destination.host)), None)
            server = self._servers.get(packet.destination.port)
            if server is not None and binding is not None:
                server.receive(binding, packet)

        return self._machine.host.bind(Protocol.TCP, local, _here(deliver))

    async def create_server(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        sock: SimSocket | None = None,
        ssl: object = None,
        **_: object,
    ) -> SimServer:
        """See `loop.create_server`."""
        _refuse_tls(ssl)
        listener = sock if sock is not None else self.listen(host or None, port or 0)
        server = SimServer(self._loop, listener, protocol_factory)
        self._servers[listener.getsockname()[1]] = server
        return server

    async def create_connection(
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: str | None = None,
        port: int | None = None,
        *,
        ssl: object = None,
        **_: object,
    ) -> tuple[TcpTransport, asyncio.BaseProtocol]:
        """See `loop.create_connection`. The addresses of a name are tried in turn."""
        _refuse_tls(ssl)
        failure: Exception = OSError(errno.EADDRNOTAVAIL, f"{host} has no address")
        for *_rest, address in self._machine.getaddrinfo(host, port):
            try:
                transport = await self._connect(Address(*address[:2]))
            except OSError as error:
                failure = error
                continue
            protocol = protocol_factory()
            transport.attach(protocol)
            return transport, protocol
        raise failure

    async def _connect(self, remote: Address) -> TcpTransport:
        wildcard = "::" if ":" in remote.host else "0.0.0.0"
        deliver = _here(lambda packet: transport.receive(packet.data))
        binding = self._machine.host.bind(Protocol.TCP, Address(wildcard, 0), deliver)
        transport = TcpTransport(
            self._loop, lambda data: binding.send(data, remote), binding.close, binding.local, remote
        )
        try:
            transport.begin()
            await transport.opened
        except BaseException:
            transport.abort()
            raise
        return transport


def _here(deliver: Callable[[Packet], None]) -> Callable[[Packet], None]:
    """Packets come from no program in particular: what they set off runs where this is called."""
    context = copy_context()
    return lambda packet: context.run(deliver, packet)


def _length(content: bytes, flags: _Flag) -> int:
    """How much a segment moves the sequence number: SYN and FIN count for one (RFC 9293 §3.4)."""
    return len(content) + bool(flags & _Flag.SYN) + bool(flags & _Flag.FIN)


def _feed(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    view = memoryview(data)
    while view:
        buffer = memoryview(protocol.get_buffer(len(view))).cast("B")
        count = min(len(buffer), len(view))
        buffer[:count] = view[:count]
        view = view[count:]
        protocol.buffer_updated(count)


def _refuse_tls(ssl: object) -> None:
    if ssl:
        raise ValueError("there is no TLS in the simulated internet: use ws:// and plain connections there")
