"""Byte streams to TURN servers: TCP or TLS, through a proxy if the environment names one, on asyncio."""

from __future__ import annotations

import asyncio
import asyncio.sslproto
import contextlib
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from typing import cast

from quice import proxy
from quice.errors import RelayUnreachableError
from quice.machine import System, this_machine
from quice.reasons import reason_of
from quice.wire import Address

_ATTEMPT_DELAY = 0.25
"""RFC 8305 §5: seconds until the next of a name's addresses is tried beside those before it."""
_LINGER = 3.0
"""Seconds in which what was sent last may still leave after `close`."""
_UNSENT = 128 << 10
"""Bytes that the kernel takes beyond what is on its way: more would wait there unseen, and be late when it is sent."""
# Python has no name for it before 3.12.
_TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)


class Tunnel(asyncio.Protocol):
    """A byte stream. `open_tunnel` makes one.

    Set `on_data`, which gets what comes, and `on_closed`, which is called once when the stream has ended other than by
    `close`, with the error if there was one. What came before they are set is not lost.
    """

    def __init__(self) -> None:
        self._raw: asyncio.Transport | None = None
        self._transport: asyncio.Transport | None = None
        self._holding: list[asyncio.Transport] = []
        self._on_data: Callable[[bytes], None] | None = None
        self._on_closed: Callable[[Exception | None], None] | None = None
        self._early: list[bytes] = []
        self._ended: tuple[Exception | None] | None = None
        self._closing = False
        self.local = Address("", 0)
        self.remote = Address("", 0)
        """The other end: the server, or the proxy."""

    @property
    def on_data(self) -> Callable[[bytes], None] | None:
        """Who gets what comes, in pieces of any length."""
        return self._on_data

    @on_data.setter
    def on_data(self, callback: Callable[[bytes], None] | None) -> None:
        self._on_data = callback
        while callback is not None and self._early:
            callback(self._early.pop(0))

    @property
    def on_closed(self) -> Callable[[Exception | None], None] | None:
        """Who is told that the stream has ended."""
        return self._on_closed

    @on_closed.setter
    def on_closed(self, callback: Callable[[Exception | None], None] | None) -> None:
        self._on_closed = callback
        if self._ended is not None:
            asyncio.get_running_loop().call_soon(self._tell)

    @property
    def buffered(self) -> int:
        """Bytes that wait to be sent. Who sends datagrams drops them while these are many: late ones are worth less."""
        return sum(transport.get_write_buffer_size() for transport in self._holding)

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be sent any more."""
        return self._closing or self._ended is not None

    def send(self, data: bytes) -> None:
        """Send; after the end, nothing happens."""
        if self._transport is not None and not self.is_closed:
            self._transport.write(data)

    def close(self) -> None:
        """End the stream, after what was sent has left."""
        if self.is_closed or self._transport is None:
            return
        self._closing = True
        self._transport.close()
        # The other end may take nothing any more.
        asyncio.get_running_loop().call_later(_LINGER, self._transport.abort)

    def abort(self) -> None:
        """End the stream at once."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._raw = self._transport = cast("asyncio.Transport", transport)
        self._holding = [self._raw]
        self.local = Address(*transport.get_extra_info("sockname")[:2])
        self.remote = Address(*transport.get_extra_info("peername")[:2])
        if isinstance(connection := transport.get_extra_info("socket"), socket.socket):
            _tune(connection)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._on_data is not None:
            self._on_data(data)
        else:
            self._early.append(data)

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._ended = (error,)
        self._tell()

    async def ask(self, by: proxy.Proxy, host: str, port: int) -> None:
        """Have a proxy pass the stream on. Raises `ProxyError`, and `OSError` when it ends."""
        answered = asyncio.get_running_loop().create_future()
        answer = proxy.Answer()

        def read(data: bytes) -> None:
            try:
                rest = answer.feed(data)
            except proxy.ProxyError as error:
                if not answered.done():
                    answered.set_exception(error)
                return
            if rest is not None and not answered.done():
                self._on_data = None
                self._early += [rest] if rest else []
                answered.set_result(None)

        def end(error: Exception | None) -> None:
            if not answered.done():
                answered.set_exception(error or proxy.ProxyError("the proxy closed the stream"))

        request = by.request(host, port)
        self.on_data, self.on_closed = read, end
        self.send(request)
        try:
            await answered
        finally:
            self._on_data = self._on_closed = None

    async def secure(self, context: ssl.SSLContext, name: str) -> None:
        """Go on in TLS. Raises `OSError`."""
        assert self._raw is not None
        if self._early:
            # It would pass for what the server says inside.
            raise ConnectionResetError("something was said before TLS began")
        loop = asyncio.get_running_loop()
        transport = await loop.start_tls(self._raw, self, context, server_hostname=name)
        if transport is None:
            raise ConnectionResetError("the stream ended in the TLS handshake")
        self._transport = transport
        # Before Python 3.11, asyncio's transport for TLS holds nothing, and tells what the one below it holds.
        if sys.version_info >= (3, 11) or not isinstance(transport, asyncio.sslproto._SSLProtocolTransport):
            self._holding.append(transport)

    def _tell(self) -> None:
        if self._on_closed is not None and self._ended is not None and not self._closing:
            callback, self._on_closed = self._on_closed, None
            callback(self._ended[0])


async def open_tunnel(
    host: str,
    port: int,
    *,
    tls: bool,
    server_hostname: str | None = None,
    ssl_context: ssl.SSLContext | None = None,
    timeout: float = 10.0,
) -> Tunnel:
    """Open a stream to a server. Raises `RelayUnreachableError`.

    server_hostname: whom the server's certificate has to be for, if that is not `host`. ssl_context: whom to trust, if
    not the authorities that the system trusts.
    """
    opening = asyncio.ensure_future(_open(host, port, server_hostname or host if tls else None, ssl_context))
    tunnel: Tunnel | None = None
    try:
        await asyncio.wait({opening}, timeout=timeout)
        if not opening.done():
            raise RelayUnreachableError(f"{host}:{port}", f"no stream within {timeout:g} s")
        try:
            tunnel = opening.result()
        except (OSError, proxy.ProxyError, ValueError) as error:
            raise RelayUnreachableError(f"{host}:{port}", reason_of(error)) from error
        return tunnel
    finally:
        if tunnel is None:
            await _discard(opening)


async def _open(host: str, port: int, name: str | None, context: ssl.SSLContext | None) -> Tunnel:
    loop = asyncio.get_running_loop()
    # The environment is that of the real machine. A simulated one has none.
    by = proxy.named(host, port) if isinstance(this_machine(), System) else None
    # Reading what the system trusts takes longer than many a handshake.
    trust = loop.run_in_executor(None, ssl.create_default_context) if name is not None and context is None else None
    tunnel: Tunnel | None = None
    try:
        tunnel = await _connect(*((by.host, by.port) if by is not None else (host, port)))
        if by is not None:
            await tunnel.ask(by, host, port)
        if name is not None:
            await tunnel.secure(context or await cast("asyncio.Future[ssl.SSLContext]", trust), name)
    except BaseException:
        if tunnel is not None:
            tunnel.abort()
        raise
    return tunnel


async def _connect(host: str, port: int) -> Tunnel:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return await connect_any([str(address[0]) for *_, address in found], port)


async def connect_any(hosts: Sequence[str], port: int) -> Tunnel:
    """Connect to whichever of these addresses answers first (RFC 8305). Raises `OSError`."""
    waiting = interleaved(hosts)
    trying: set[asyncio.Future[Tunnel]] = set()
    connected: Tunnel | None = None
    failure: BaseException = OSError("its name has no address")
    try:
        while connected is None and (waiting or trying):
            if waiting:
                trying.add(asyncio.ensure_future(_attempt(waiting.pop(0), port)))
            done, trying = await asyncio.wait(
                trying, timeout=_ATTEMPT_DELAY if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                if (error := attempt.exception()) is not None:
                    failure = error
                elif connected is None:
                    connected = attempt.result()
                else:
                    attempt.result().abort()
    finally:
        for attempt in trying:
            await _discard(attempt)
    if connected is None:
        raise failure
    return connected


async def _attempt(host: str, port: int) -> Tunnel:
    _, tunnel = await asyncio.get_running_loop().create_connection(Tunnel, host, port)
    return tunnel


async def _discard(opening: asyncio.Future[Tunnel]) -> None:
    """Have nothing left of a stream that is being opened."""
    opening.cancel()
    with contextlib.suppress(Exception):
        await asyncio.wait({opening})
    if not opening.cancelled() and opening.exception() is None:
        opening.result().abort()


def interleaved(hosts: Sequence[str]) -> list[str]:
    """A name's addresses with families taking turns, the system's first choice first (RFC 8305 §4)."""
    different = list(dict.fromkeys(hosts))
    first = [host for host in different if (":" in host) is (":" in different[0])]
    others = [host for host in different if host not in first]
    ordered: list[str] = []
    while first or others:
        ordered += [family.pop(0) for family in (first, others) if family]
    return ordered


def _tune(connection: socket.socket) -> None:
    # Each write is a datagram, and in a hurry.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if _TCP_NOTSENT_LOWAT is not None:
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT)
