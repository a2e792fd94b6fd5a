"""`quice serve`: rendezvous on WebSocket, STUN and TURN on UDP and TCP, in one process."""

from __future__ import annotations

import asyncio
import logging
import socket
from types import TracebackType
from typing import cast

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.protocol import State

from quice.errors import BindError
from quice.machine import this_machine
from quice.server.credentials import RelayCredentials
from quice.server.relay import RelayService, RelaySettings, random_secret
from quice.server.rendezvous import MAX_BUFFER, Rendezvous
from quice.server.strangers import Strangers
from quice.signal import protocol
from quice.signal.protocol import SAME_HOST
from quice.wire import Address

DEFAULT_PORT = 4780
"""TCP, for WebSocket."""
DEFAULT_STUN_PORT = 3478
"""UDP, and TCP for TURN; STUN's own (RFC 8489 §18.6)."""

_WILDCARDS = {"0.0.0.0": 4, "::": 6}  # noqa: S104 - a server is there to be reached
_OPEN_TIMEOUT = 10.0
"""Seconds a connection may take for the WebSocket handshake."""
_CLOSE_TIMEOUT = 2.0
"""Seconds that peers have for the closing handshake, and all connections to end with the server."""
_KEEPALIVE = 20.0
"""Seconds between two pings to a peer, and that it may take to answer one."""

# The library reports each connection at INFO and each failed handshake as an error with a traceback: strangers
# are not to fill logs. What fails here for a reason of ours is still reported.
_connection_logger = logging.getLogger(f"{__name__}.connections")
_connection_logger.addFilter(lambda record: record.levelno != logging.INFO and record.msg != "opening handshake failed")


def _without_date(_connection: ServerConnection, _request: Request, response: Response) -> None:
    """RFC 9110 §6.6.1 asks for no date in the answer that switches protocols; a simulated run would differ by it."""
    del response.headers["Date"]


class Server:
    """Everything peers need to find each other; an async context manager.

    host: a local IP address, or None for all of them, IPv4 and IPv6. port: of the rendezvous. stun_port: of STUN and
    TURN. 0 lets the system choose. relay: what is relayed, and for whom. Entering it raises `BindError`.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int = DEFAULT_PORT,
        stun_port: int = DEFAULT_STUN_PORT,
        *,
        relay: RelaySettings | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._stun_port = stun_port
        self._relay_settings = relay or RelaySettings()
        self._connections: set[asyncio.Transport] = set()
        self._strangers = Strangers()

    async def __aenter__(self) -> Server:
        self._machine = this_machine()
        listener = self._listen()
        self._port = listener.getsockname()[1]
        secret = self._relay_settings.secret or random_secret()
        self.relay = RelayService(self._relay_settings, secret)
        try:
            self.relay.bind([self._host] if self._host else list(_WILDCARDS), self._stun_port)
            self.relay.protect([self._port])
            self.rendezvous = Rendezvous(
                self.relay.port,
                RelayCredentials(secret, self._relay_urls(), self.relay.challenge),
                lambda connection: self._strangers.leave(connection.transport),
            )
            self._web: WebSocketServer = await serve(
                self.rendezvous.serve,
                sock=listener,
                compression=None,
                max_size=protocol.MAX_FRAME,
                max_queue=8,
                # Above what is ever waiting to be sent: pings and closing wait for room, without an end.
                write_limit=2 * MAX_BUFFER,
                open_timeout=_OPEN_TIMEOUT,
                close_timeout=_CLOSE_TIMEOUT,
                ping_interval=_KEEPALIVE,
                ping_timeout=_KEEPALIVE,
                server_header=None,
                process_response=_without_date,
                logger=_connection_logger,
                create_connection=self._tracked(),
            )
        except BaseException:
            listener.close()
            self.relay.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.relay.close()
        self._web.close()
        # Those that are still in their opening handshake would be waited for until it times out.
        deadline = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT, self._cut_off)
        try:
            await self._web.wait_closed()
        except BaseException:
            self._cut_off()
            raise
        finally:
            deadline.cancel()

    def _cut_off(self) -> None:
        for transport in list(self._connections):
            transport.abort()

    @property
    def url(self) -> str:
        """What peers name as their server, from the same network."""
        return f"ws://{Address(self._name(), self._port)}"

    @property
    def stun(self) -> Address:
        """Where the STUN service answers."""
        return Address(self._name(), self.relay.port)

    @property
    def turn(self) -> tuple[str, ...]:
        """The URLs of the relays that peers are told of, from the same network; empty if there are none."""
        host = self._name()
        host = f"[{host}]" if ":" in host else host
        return tuple(url.replace("turn::", f"turn:{host}:", 1) for url in self._relay_urls())

    def _relay_urls(self) -> tuple[str, ...]:
        if not self.relay.relays:
            return self._relay_settings.urls
        # UDP first: it is the better way where it works.
        return tuple(f"turn:{SAME_HOST}:{self.relay.port}?transport={name}" for name in ("udp", "tcp"))

    def _listen(self) -> socket.socket:
        """The listening socket: one for both families when no address is given."""
        try:
            return self._machine.listen(self._host, self._port)
        except (OSError, ValueError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            where = f" of {self._host}" if self._host is not None else ""
            raise BindError(f"TCP port {self._port}{where} for the rendezvous", reason) from error

    def _tracked(self) -> type[ServerConnection]:
        """The class of this server's connections, which keeps account of them from their first byte."""
        transports, strangers = self._connections, self._strangers

        class Connection(ServerConnection):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                transports.add(cast("asyncio.Transport", transport))
                strangers.add(cast("asyncio.Transport", transport))
                # asyncio sees to that for connections that it opens itself. A challenge, or a candidate after an
                # answer, would wait a round trip (RFC 9293 §3.7.4).
                if (accepted := transport.get_extra_info("socket")) is not None:
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                super().connection_made(transport)

            def data_received(self, data: bytes) -> None:
                if self.state is State.CONNECTING and not strangers.takes(self.transport, len(data)):
                    self.transport.abort()
                    return
                super().data_received(data)

            def connection_lost(self, exc: Exception | None) -> None:
                transports.discard(self.transport)
                strangers.leave(self.transport)
                super().connection_lost(exc)

        return Connection

    def _name(self) -> str:
        """An address of this machine that peers can reach the server at."""
        if self._host is not None and self._host not in _WILDCARDS:
            return self._host
        families = [_WILDCARDS[self._host]] if self._host is not None else [4, 6]
        hosts = [local for local in self._machine.addresses() if local.ip.version in families]
        hosts.sort(key=lambda local: (local.ip.version, local.ip.is_link_local))
        return hosts[0].host if hosts else {4: "127.0.0.1", 6: "::1"}[families[0]]
