"""`quice serve`: rendezvous on WebSocket, STUN and TURN on UDP and TCP, in one process."""

from __future__ import annotations

import asyncio
import socket
from types import TracebackType

from websockets.frames import CloseCode
from websockets.http11 import Request

from quice.errors import BindError
from quice.machine import this_machine
from quice.server.credentials import RelayCredentials
from quice.server.relay import RelayService, RelaySettings, random_secret
from quice.server.rendezvous import Rendezvous, Visit
from quice.server.store import MemoryStore, Store
from quice.server.websocket import CLOSE_TIMEOUT, Connections, Reply, WebSocket
from quice.signal import protocol
from quice.signal.protocol import SAME_HOST
from quice.wire import Address

DEFAULT_PORT = 4780
"""TCP, for WebSocket."""
DEFAULT_STUN_PORT = 3478
"""UDP, and TCP for TURN; STUN's own (RFC 8489 §18.6)."""

_BACKLOG = 4096
"""Connections that wait to be accepted: when a server has gone, all its peers come at once."""
_WILDCARDS = {"0.0.0.0": 4, "::": 6}  # noqa: S104 - a server is there to be reached


class Server:
    """Everything peers need to find each other; an async context manager.

    host: a local IP address, or None for all of them, IPv4 and IPv6. port: of the rendezvous. stun_port: of STUN and
    TURN. 0 lets the system choose. relay: what is relayed, and for whom. store: what the processes of a service share;
    by default this one is the whole service. Entering it raises `BindError`.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int = DEFAULT_PORT,
        stun_port: int = DEFAULT_STUN_PORT,
        *,
        relay: RelaySettings | None = None,
        store: Store | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._stun_port = stun_port
        self._relay_settings = relay or RelaySettings()
        self._given_store = store

    async def __aenter__(self) -> Server:
        self._machine = this_machine()
        self._store = MemoryStore() if self._given_store is None else self._given_store
        listener = self._listen()
        self._port = listener.getsockname()[1]
        secret = self._relay_settings.secret or random_secret()
        self.relay = RelayService(self._relay_settings, secret)
        try:
            self.relay.bind([self._host] if self._host else list(_WILDCARDS), self._stun_port)
            self.relay.protect([self._port])
            credentials = RelayCredentials(secret, self._relay_urls(), self.relay.challenge)
            self.rendezvous = Rendezvous(self.relay.port, credentials, self._store)
            await self._store.open(self.rendezvous)
            self._connections = Connections(self, protocol.MAX_FRAME)
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(self._connections.accept, sock=listener, backlog=_BACKLOG)
        except BaseException:
            listener.close()
            self.relay.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.relay.close()
        self._listener.close()
        for websocket in self._connections:
            websocket.close(CloseCode.GOING_AWAY)
        # Those that are still in their opening handshake have nothing to say goodbye to.
        deadline = asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._connections.cut_off)
        try:
            await self.rendezvous.close()
            await self._connections.wait_gone()
            await self._store.close()
        except BaseException:
            self._connections.cut_off()
            raise
        finally:
            deadline.cancel()

    # What a connection calls.

    def turn_away(self, websocket: WebSocket, request: Request) -> Reply | None:
        """See `House`."""
        return None

    def welcome(self, websocket: WebSocket) -> Visit:
        """See `House`."""
        return self.rendezvous.welcome(websocket)

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

    def _name(self) -> str:
        """An address of this machine that peers can reach the server at."""
        if self._host is not None and self._host not in _WILDCARDS:
            return self._host
        families = [_WILDCARDS[self._host]] if self._host is not None else [4, 6]
        hosts = [local for local in self._machine.addresses() if local.ip.version in families]
        hosts.sort(key=lambda local: (local.ip.version, local.ip.is_link_local))
        return hosts[0].host if hosts else {4: "127.0.0.1", 6: "::1"}[families[0]]
