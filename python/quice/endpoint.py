"""An endpoint: one UDP port, shared by QUIC and STUN, on which connections are made and accepted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Generator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from quice import _native
from quice._native import Event
from quice.config import TransportConfig
from quice.connection import Connection
from quice.errors import (
    BindError,
    ConnectError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointClosedError,
    HandshakeError,
    IdleTimeoutError,
    NoServerError,
)
from quice.identity import Identity, PeerId
from quice.network import local_addresses
from quice.pump import Pump
from quice.wire import Address

if TYPE_CHECKING:
    from quice.ice.agent import Report

logger = logging.getLogger(__name__)

_WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - every interface is the point: any may reach the peer
# Connections that wait for `accept`; more are refused.
_BACKLOG = 1024
# How long closing waits for connections to drain: three times a slow path's probe timeout (RFC 9000 §10.2).
_DRAIN_TIMEOUT = 2.0
_REFUSED = 0x71


class Endpoint:
    """One UDP port for all connections of a program, as client and as server.

    Made by `Endpoint.bind`, and used as an async context manager:

        async with Endpoint.bind(identity, server="ws://...", alpns=["chat/1"]) as endpoint:
            connection = await endpoint.connect(peer, alpn="chat/1")

    As an async iterator it yields the connections that others make to it. All awaits can be cancelled.
    """

    def __init__(
        self,
        identity: Identity,
        server: str | None,
        alpns: Sequence[str],
        host: str | None,
        port: int,
        config: TransportConfig,
        credentials: _native.Credentials,
    ) -> None:
        self.identity = identity
        self.peer = identity.peer
        self._server = server
        self._host = host
        self._port = port
        self._connections: dict[int, Connection] = {}
        self._accepted: asyncio.Queue[Connection | None] = asyncio.Queue(_BACKLOG)
        self._engine = _native.Engine(
            credentials, [alpn.encode() for alpn in alpns], config, sockets=True
        )
        self._bound: list[Address] = []
        self._closed = False

    @classmethod
    def bind(
        cls,
        identity: Identity | None = None,
        *,
        server: str | None = None,
        alpns: Sequence[str] = (),
        host: str | None = None,
        port: int = 0,
        config: TransportConfig | None = None,
    ) -> _Binding:
        """Bind a UDP port on every interface, for IPv4 and IPv6, or on `host` alone.

        identity: who this endpoint is; a new one if not given. server: the rendezvous server's URL (`ws://` or
        `wss://`), by which peers find each other. alpns: the application protocols to accept connections for;
        with none, only `connect` works. port: 0 lets the system choose.

        Use it in `async with`, or await it and call `close` yourself. Raises `BindError`, `ValueError` for a
        host that is no IP address, and `ServerUnreachableError` when the server can't be reached.
        """
        identity = identity or Identity.generate()
        return _Binding(
            cls(
                identity,
                server,
                alpns,
                host,
                port,
                config or TransportConfig(),
                _native.Credentials.raw_key(identity.secret_key),
            )
        )

    @property
    def addresses(self) -> list[Address]:
        """The local addresses of this endpoint: one for each usable address of the machine."""
        addresses: list[Address] = []
        for bound in self._bound:
            if bound.host in _WILDCARDS:
                family = bound.ip.version
                hosts = [local.host for local in local_addresses() if local.ip.version == family]
                addresses += [Address(host, bound.port) for host in hosts]
            else:
                addresses.append(bound)
        return addresses

    @property
    def port(self) -> int:
        """The UDP port."""
        return self._bound[0].port

    async def connect(
        self, peer: PeerId, *, alpn: str, address: Address | None = None, timeout: float = 15.0
    ) -> Connection:
        """Connect to a peer, through the rendezvous server or, with `address`, straight to that address.

        timeout: seconds until it gives up. Raises a `ConnectError`: `ConnectTimeoutError`, `HandshakeError`
        when it is not the peer who answers or it does not speak `alpn`, `PeerUnreachableError` when the server
        does not know the peer, `NoPathError` when no candidates reach each other; and `NoServerError`.
        """
        self._raise_if_closed()
        if address is None:
            raise NoServerError
        started = time.monotonic()
        connection = self._begin(peer, alpn, address)
        await self._establish(connection, timeout)
        connection.connect_seconds = time.monotonic() - started
        return connection

    async def accept(self) -> Connection:
        """The next connection that a peer made to this endpoint. Raises `EndpointClosedError`."""
        self._raise_if_closed()
        connection = await self._accepted.get()
        if connection is None:
            self._accepted.put_nowait(None)
            raise EndpointClosedError
        return connection

    async def __aiter__(self) -> AsyncIterator[Connection]:
        """The connections that peers make to this endpoint, until it is closed."""
        while True:
            try:
                yield await self.accept()
            except EndpointClosedError:
                return

    async def close(self, code: int = 0, reason: str = "") -> None:
        """Close every connection with this code and reason, wait until they have said goodbye, and free the port."""
        if self._closed:
            return
        self._closed = True
        connections = list(self._connections.values())
        try:
            for connection in connections:
                connection.close(code, reason)
            if connections:
                drained = asyncio.gather(*(connection._drained.wait() for connection in connections))
                await asyncio.wait_for(drained, _DRAIN_TIMEOUT)
        except asyncio.TimeoutError:
            logger.debug("%d connections were not drained in time", len(self._connections))
        finally:
            self._pump.close()
            for connection in connections:
                connection._handle_closed_endpoint()
            while self._accepted.full():
                self._accepted.get_nowait()
            self._accepted.put_nowait(None)

    async def _open(self) -> None:
        self._pump = Pump(self._engine, self._dispatch)
        try:
            self._bind_sockets()
        except BaseException:
            self._closed = True
            self._pump.close()
            raise

    def _bind_sockets(self) -> None:
        if self._host is not None:
            self._bind_socket(self._host, self._port)
            return
        self._bind_socket(_WILDCARDS[0], self._port)
        try:
            self._bind_socket(_WILDCARDS[1], self.port)
        except BindError as error:
            logger.info("IPv4 alone: %s", error)

    def _bind_socket(self, host: str, port: int) -> None:
        try:
            descriptor, address = self._engine.bind(host, port)
        except OSError as error:
            raise BindError(str(Address(host, port)), error.strerror or str(error)) from error
        self._bound.append(Address(*address))
        self._pump.watch(descriptor)

    def _begin(self, peer: PeerId, alpn: str, address: Address) -> Connection:
        try:
            native = self._engine.connect(address, alpn.encode(), peer=peer.key)
        except OSError as error:
            raise HandshakeError(str(error)) from error
        connection = self._connections[native.id] = Connection(native, self._pump.wake)
        self._pump.wake()
        return connection

    async def _establish(self, connection: Connection, timeout: float) -> None:
        try:
            await asyncio.wait_for(asyncio.shield(connection._established), timeout)
        except asyncio.TimeoutError:
            connection.close()
            raise ConnectTimeoutError(timeout) from None
        except IdleTimeoutError:
            raise ConnectTimeoutError(timeout, "nothing was heard from the peer") from None
        except ConnectionClosedError as error:
            raise HandshakeError(str(error)) from error
        except BaseException:
            connection.close()
            raise

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, Event.Packet):
            self._on_packet(event)
            return
        handle: int = event.connection  # type: ignore[attr-defined]
        connection = self._connections.get(handle)
        if connection is None:
            if not (isinstance(event, Event.Connected) and event.accepted):
                return
            native = self._engine.connection(handle)
            connection = self._connections[handle] = Connection(native, self._pump.wake)
        if isinstance(event, Event.Drained):
            del self._connections[handle]
        connection._handle(event)
        if isinstance(event, Event.Connected) and event.accepted:
            self._offer(connection)

    def _offer(self, connection: Connection) -> None:
        if self._closed or self._accepted.full():
            connection.close(_REFUSED, "too many connections wait to be accepted")
        else:
            self._accepted.put_nowait(connection)

    def _on_packet(self, event: Event.Packet) -> None:
        """A STUN message: nobody here waits for one."""

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise EndpointClosedError

    def __repr__(self) -> str:
        return f"<Endpoint {self.peer} port {self._bound[0].port if self._bound else None}>"


class _Binding:
    """What `Endpoint.bind` returns: await it, or enter it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def __await__(self) -> Generator[object, None, Endpoint]:
        return self._bind().__await__()

    async def _bind(self) -> Endpoint:
        await self._endpoint._open()
        return self._endpoint

    async def __aenter__(self) -> Endpoint:
        return await self._bind()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._endpoint.close()
