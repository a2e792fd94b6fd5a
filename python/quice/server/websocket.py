"""One WebSocket connection of a server: websockets' sans-I/O protocol on an asyncio transport.

The library's own connections have tasks, queues and timers of their own, and most of the peers that are registered are
idle. Here a connection is two objects, and what comes on it is a call.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from http import HTTPStatus
from typing import NamedTuple, Protocol, cast

from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from quice.server.strangers import Strangers

OPEN_TIMEOUT = 10.0
"""Seconds a connection may take for the WebSocket handshake."""
CLOSE_TIMEOUT = 2.0
"""Seconds that a peer has for the closing handshake."""
KEEPALIVE = 20.0
"""Seconds of silence after which a peer is pinged, and that it may take to answer."""
MAX_BUFFER = 256 << 10
"""Bytes that wait to be read by one peer; beyond that nothing more is delivered to it."""
_MAX_PIECES = 64
"""Of one message: quice's own have one each, proxies may make more of it."""
_SWEEPS = 8
"""How often in `KEEPALIVE` the connections are looked at."""
_AT_ONCE = 100
_BREATH = 0.01
"""Connections that are looked at in one go, and seconds until the next ones are: all may be due for a ping together,
and messages between peers are not to wait for that."""

# The library reports each connection at INFO. What fails for a reason of ours it reports as an error.
_library_logger = logging.getLogger(f"{__name__}.protocol")
_library_logger.setLevel(logging.WARNING)


class Reply(NamedTuple):
    """What a request gets instead of a WebSocket."""

    status: HTTPStatus
    text: str
    content_type: str = "text/plain; charset=utf-8"


class Guest(Protocol):
    """Who uses a WebSocket that is open."""

    def received(self, frame: bytes | str) -> None:
        """A message has come."""

    def left(self) -> None:
        """The connection is over, or will be at once; called once."""


class House(Protocol):
    """Who takes connections in."""

    def turn_away(self, websocket: WebSocket, request: Request) -> Reply | None:
        """The reply to a request that is to open no WebSocket; None if it is to."""

    def welcome(self, websocket: WebSocket) -> Guest:
        """The WebSocket is open."""

    def gone(self, websocket: WebSocket) -> None:
        """The connection of a request that was not turned away is over."""


class Connections:
    """All connections of a listening socket, from their first byte. Those that do not answer pings are dropped."""

    def __init__(self, house: House, max_frame: int) -> None:
        self.house = house
        self.max_frame = max_frame
        self.loop = asyncio.get_running_loop()
        # In order, as a set would not be.
        self._connections: dict[WebSocket, None] = {}
        self.strangers = Strangers()
        self._sweep: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def __iter__(self) -> Iterator[WebSocket]:
        return iter(list(self._connections))

    def accept(self) -> WebSocket:
        """The protocol of a connection that was accepted."""
        return WebSocket(self)

    def cut_off(self) -> None:
        """End all connections, without a word."""
        for websocket in self:
            websocket.abort()

    async def wait_gone(self) -> None:
        """Wait until there are no connections any more."""
        while self._connections:
            self._emptied = self.loop.create_future()
            await self._emptied

    def _add(self, websocket: WebSocket) -> None:
        self._connections[websocket] = None
        self.strangers.add(websocket)
        if self._sweep is None:
            self._sweep = self.loop.call_later(KEEPALIVE / _SWEEPS, self._look)

    def _remove(self, websocket: WebSocket) -> None:
        self._connections.pop(websocket, None)
        self.strangers.leave(websocket)
        if not self._connections:
            if self._sweep is not None:
                self._sweep.cancel()
                self._sweep = None
            if self._emptied is not None and not self._emptied.done():
                self._emptied.set_result(None)

    def _look(self, left: list[WebSocket] | None = None) -> None:
        """One timer for all, which would take memory each. `left`: those that this round has not come to yet."""
        if left is None:
            left = list(self)
        now = self.loop.time()
        for websocket in left[:_AT_ONCE]:
            if websocket in self._connections:
                websocket._keep_alive(now)
        del left[:_AT_ONCE]
        if left:
            self._sweep = self.loop.call_later(_BREATH, self._look, left)
        else:
            self._sweep = self.loop.call_later(KEEPALIVE / _SWEEPS, self._look) if self._connections else None


class WebSocket(asyncio.Protocol):
    """A connection, which is a WebSocket once its request is answered."""

    __slots__ = (
        "_connections",
        "_deadline",
        "_guest",
        "_heard_at",
        "_holds",
        "_parts",
        "_pieces",
        "_pinged_at",
        "_protocol",
        "admitted",
        "host",
        "transport",
    )

    transport: asyncio.Transport

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._protocol = ServerProtocol(max_size=connections.max_frame, logger=_library_logger)
        self._guest: Guest | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._parts: bytearray | None = None
        self._pieces = 0
        self._heard_at = 0.0
        self._pinged_at: float | None = None
        self._holds = 0
        self.admitted = False
        self.host = ""
        """Where the peer is, as far as is known: whoever answers requests may know better than the socket."""

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast("asyncio.Transport", transport)
        self.host = _host(transport.get_extra_info("peername"))
        # asyncio sees to that for connections that it opens itself. A challenge, or a candidate after an answer, would
        # wait a round trip (RFC 9293 §3.7.4).
        if (accepted := transport.get_extra_info("socket")) is not None:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._heard_at = self._connections.loop.time()
        self._deadline = self._connections.loop.call_later(OPEN_TIMEOUT, self.abort)
        self._connections._add(self)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._heard_at = self._connections.loop.time()
        self._pinged_at = None
        if self._protocol.state is State.CONNECTING and not self._connections.strangers.takes(self, len(data)):
            self.abort()
            return
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Request):
                self._answer(event)
            elif isinstance(event, Frame):
                self._take(event)
        self._flush()

    def eof_received(self) -> None:
        """See `asyncio.Protocol`. The transport closes itself then."""
        self._protocol.receive_eof()
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._leave()
        self._connections._remove(self)
        if self.admitted:
            self._connections.house.gone(self)

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: who does not read is not listened to, or its pings would have answers without end."""
        self.hold()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.release()

    # What the guest calls.

    @property
    def is_open(self) -> bool:
        """Whether messages go both ways."""
        return self._protocol.state is State.OPEN and not self.transport.is_closing()

    def send(self, message: bytes) -> bool:
        """Send without waiting for a slow reader; returns whether there was room for the message."""
        if not self.is_open or self.transport.get_write_buffer_size() + len(message) > MAX_BUFFER:
            return False
        self._protocol.send_binary(message)
        self._flush()
        return True

    def settle(self) -> None:
        """The guest is known: others that come do not cost it its place."""
        self._connections.strangers.leave(self)

    def hold(self) -> None:
        """Read nothing more, until `release` is called as often as this was."""
        self._holds += 1
        if self._holds == 1:
            self.transport.pause_reading()

    def release(self) -> None:
        """See `hold`."""
        self._holds -= 1
        if self._holds == 0 and not self.transport.is_closing():
            self.transport.resume_reading()

    def close(self, code: int, reason: str = "") -> None:
        """Begin the closing handshake; the peer has `CLOSE_TIMEOUT` seconds for its part."""
        self._leave()
        if self._protocol.state is State.CONNECTING:
            self.transport.abort()
        elif self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._flush()

    def abort(self) -> None:
        """End the connection, without a word."""
        self._connections.strangers.leave(self)
        self._leave()
        self.transport.abort()

    # What is between.

    def _answer(self, request: Request) -> None:
        if self._protocol.data_to_send():
            # RFC 6455 §4.1: who opens a WebSocket sends nothing on it before this answer.
            self.abort()
            return
        reply = self._connections.house.turn_away(self, request)
        if reply is None:
            self.admitted = True
            response = self._protocol.accept(request)
        else:
            response = self._protocol.reject(reply.status, reply.text)
            del response.headers["Content-Type"]
            response.headers["Content-Type"] = reply.content_type
        # RFC 9110 §6.6.1 asks for no date in the answer that switches protocols; a simulated run would differ by it.
        del response.headers["Date"]
        self._protocol.send_response(response)
        if self.is_open:
            self._set_deadline(None)
            self._flush()
            self._guest = self._connections.house.welcome(self)

    def _take(self, frame: Frame) -> None:
        if frame.opcode is Opcode.CLOSE:
            self._leave()
        if self._guest is None or frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.fin and self._parts is None:
            data = bytes(frame.data)
        else:
            # A message in pieces; the protocol sees to its size, but not to pieces of nothing.
            if self._parts is None:
                self._parts, self._pieces = bytearray(), 0
            self._parts += frame.data
            self._pieces += 1
            if self._pieces > _MAX_PIECES:
                self._protocol.fail(CloseCode.POLICY_VIOLATION, "too many pieces")
                return
            if not frame.fin:
                return
            data, self._parts = bytes(self._parts), None
        self._guest.received(data if frame.opcode is not Opcode.TEXT else data.decode(errors="replace"))

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.transport.write(data)
            elif self.transport.is_closing():
                break
            elif self.transport.can_write_eof():
                # Rather than close: unread input would make the system reset what is still on its way to the peer.
                self.transport.write_eof()
            else:
                self.transport.close()
        if self._deadline is None and self._protocol.state is not State.OPEN:
            # Failed, or closed by either side.
            self._leave()
            self._set_deadline(CLOSE_TIMEOUT)
            if self._holds:
                # Its answer is to be read.
                self._holds = 0
                self.transport.resume_reading()

    def _leave(self) -> None:
        guest, self._guest = self._guest, None
        if guest is not None:
            guest.left()

    def _keep_alive(self, now: float) -> None:
        if self._deadline is not None or now - self._heard_at < KEEPALIVE:
            return
        if self._pinged_at is None:
            self._pinged_at = now
            self._protocol.send_ping(b"")
            self._flush()
        elif now - self._pinged_at >= KEEPALIVE:
            self._protocol.fail(CloseCode.INTERNAL_ERROR, "no answer to a ping")
            self._flush()
            self.abort()

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self._connections.loop.call_later(seconds, self.abort)


def _host(address: tuple[str, ...] | None) -> str:
    """Where a peer comes from; on a socket of both families IPv4 comes in the clothes of IPv6 (RFC 4291 §2.5.5.2)."""
    host = str(address[0]) if address else ""
    return host.removeprefix("::ffff:") if "." in host else host
