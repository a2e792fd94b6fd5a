"""The TCP of one simulated machine: which connection a segment is of, who listens, and how connections begin."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context
from typing import TYPE_CHECKING

from quice.sim.packet import Packet, Protocol
from quice.sim.tcp import TcpTransport, opens, reset_for
from quice.wire import Address

if TYPE_CHECKING:
    from quice.sim.clock import SimLoop
    from quice.sim.host import Binding
    from quice.sim.machine import SimMachine

_WILDCARDS = ("0.0.0.0", "::")


class SimSocket:
    """What a machine's `listen` gives to `loop.create_server`."""

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


class SimServer(asyncio.AbstractServer):
    """A listener. Connections that came to it go on without it."""

    def __init__(
        self,
        loop: SimLoop,
        listener: SimSocket,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        forget: Callable[[SimServer], None],
    ) -> None:
        """`forget` is called when it is closed."""
        self.protocol_factory = protocol_factory
        # Segments come from no program in particular: what they set off runs where the listener was made.
        self.context = copy_context()
        self._loop = loop
        self._listener = listener
        self._forget = forget
        self._open = True
        self._serving: asyncio.Future[None] | None = None

    @property
    def sockets(self) -> tuple[SimSocket, ...]:
        return (self._listener,) if self._open else ()

    def accepts(self, local: Address) -> bool:
        """Whether a connection to this address is for this listener."""
        wildcard = Address(_WILDCARDS[":" in local.host], local.port)
        return any(binding.local in (local, wildcard) for binding in self._listener.bindings)

    def is_serving(self) -> bool:
        return self._open

    async def start_serving(self) -> None:
        """It serves from the start."""

    async def serve_forever(self) -> None:
        self._serving = self._loop.create_future()
        try:
            await self._serving
        finally:
            self.close()

    def close(self) -> None:
        if self._open:
            self._open = False
            self._listener.close()
            self._forget(self)
            if self._serving is not None:
                self._serving.cancel()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    async def wait_closed(self) -> None:
        """Connections end by their own account, as before Python 3.12."""


class Tcp:
    """The connections and listeners of one machine."""

    def __init__(self, loop: SimLoop, machine: SimMachine) -> None:
        self._loop = loop
        self._machine = machine
        self._host = machine.host
        self._servers: list[SimServer] = []
        self._connections: dict[tuple[Address, Address], tuple[Context, TcpTransport]] = {}
        self._host.answer_unbound(Protocol.TCP, self._receive)

    def listen(self, host: str | None, port: int) -> SimSocket:
        """A listening socket; on all addresses, IPv4 and IPv6, if `host` is None. Raises `OSError`."""
        return self._listen(_WILDCARDS if host is None else (host,), port)

    def _listen(self, hosts: Sequence[str], port: int) -> SimSocket:
        listener: list[Binding] = []
        try:
            for host in hosts:
                listener.append(self._host.bind(Protocol.TCP, Address(host, port), self._receive))
                port = listener[0].local.port
        except OSError:
            for binding in listener:
                binding.close()
            raise
        return SimSocket(listener)

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
        if sock is None:
            found = self._machine.getaddrinfo(host, port) if host else []
            sock = self._listen([address[0] for *_rest, address in found] or _WILDCARDS, port or 0)
        return self._start(sock, protocol_factory)

    def serve(self, protocol_factory: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> SimServer:
        """Listen on one address, and serve at once. Raises `OSError`."""
        return self._start(self._listen((host,), port), protocol_factory)

    def _start(self, sock: SimSocket, protocol_factory: Callable[[], asyncio.BaseProtocol]) -> SimServer:
        server = SimServer(self._loop, sock, protocol_factory, self._servers.remove)
        self._servers.append(server)
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
        source = self._host.source_for(remote)
        port = self._host.bind(Protocol.TCP, Address(source, 0), self._receive)
        transport = self._connection(port.local, remote, copy_context(), port.close)
        try:
            transport.begin()
            await transport.opened
        except BaseException:
            transport.abort()
            raise
        return transport

    def abort(self) -> None:
        """End all connections, as when the machine is switched off."""
        for context, transport in list(self._connections.values()):
            context.run(transport.abort)

    def _receive(self, packet: Packet) -> None:
        local, remote = packet.destination, packet.source
        found = self._connections.get((local, remote))
        if found is not None:
            context, transport = found
            context.run(transport.receive, packet.data)
            return
        server = next((server for server in self._servers if server.accepts(local)), None)
        if server is not None and opens(packet.data):
            server.context.run(self._accept, server, packet)
        elif (reset := reset_for(packet.data)) is not None:
            self._host.send(Protocol.TCP, local, reset, remote)

    def _accept(self, server: SimServer, packet: Packet) -> None:
        def attach(opened: asyncio.Future[None]) -> None:
            if opened.exception() is None:
                transport.attach(server.protocol_factory())

        transport = self._connection(packet.destination, packet.source, server.context)
        transport.opened.add_done_callback(attach)
        transport.receive(packet.data)
        transport.begin()

    def _connection(
        self, local: Address, remote: Address, context: Context, release: Callable[[], None] | None = None
    ) -> TcpTransport:
        def send(segment: bytes) -> None:
            self._host.send(Protocol.TCP, local, segment, remote)

        def forget() -> None:
            del self._connections[local, remote]
            if release is not None:
                release()

        transport = TcpTransport(self._loop, send, forget, local, remote)
        self._connections[local, remote] = context, transport
        return transport


def _refuse_tls(ssl: object) -> None:
    if ssl:
        raise ValueError("there is no TLS in the simulated internet: use ws:// and plain connections there")
