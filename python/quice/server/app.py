"""`quice serve`: rendezvous on WebSocket, STUN and TURN on UDP and TCP, in one process."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping
from types import TracebackType

from websockets.frames import CloseCode

from quice.errors import BindError
from quice.machine import this_machine
from quice.server import websocket
from quice.server.certificate import Certificate
from quice.server.credentials import RelayCredentials
from quice.server.entrance import Access, Entrance
from quice.server.logs import Event, about
from quice.server.relay import RelayService, RelaySettings, random_secret
from quice.server.rendezvous import Rendezvous
from quice.server.store import MemoryStore, Store
from quice.server.websocket import CLOSE_TIMEOUT, Connections
from quice.signal import protocol
from quice.signal.protocol import SAME_HOST
from quice.wire import Address

logger = logging.getLogger(__name__)

DEFAULT_PORT = 4780
"""TCP, for WebSocket."""
DEFAULT_STUN_PORT = 3478
"""UDP, and TCP for TURN; STUN's own (RFC 8489 §18.6)."""

_BACKLOG = 4096
"""Connections that wait to be accepted: when a server has gone, all its peers come at once."""
_MOVES = 500.0
"""Peers a second that are sent elsewhere: registering them costs the others time."""
_WILDCARDS = {"0.0.0.0": 4, "::": 6}  # noqa: S104 - a server is there to be reached


class Server:
    """Everything peers need to find each other; an async context manager.

    host: a local IP address, or None for all of them, IPv4 and IPv6. port: of the rendezvous. stun_port: of STUN and
    TURN. 0 lets the system choose. relay: what is relayed, and for whom. store: what the processes of a service share;
    by default this one is the whole service. access: limits, proxies, TLS, and the port for those who watch.
    Entering it raises `BindError`, `StoreUnreachableError` and `CertificateError`.
    """

    def __init__(
        self,
        host: str | None = None,
        port: int = DEFAULT_PORT,
        stun_port: int = DEFAULT_STUN_PORT,
        *,
        relay: RelaySettings | None = None,
        store: Store | None = None,
        access: Access | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._stun_port = stun_port
        self._relay_settings = relay or RelaySettings()
        self._given_store = store
        self._access = access or Access()
        self._certificate: Certificate | None = None
        self._watched: asyncio.Server | None = None
        self.metrics: Address | None = None
        """Where those who watch find `/metrics`."""

    async def __aenter__(self) -> Server:
        self._machine = this_machine()
        self._store = MemoryStore() if self._given_store is None else self._given_store
        if self._access.certificate is not None:
            self._certificate = Certificate(*self._access.certificate)
        listener = self._listen(self._host, self._port, "the rendezvous")
        self._port = listener.getsockname()[1]
        secret = self._relay_settings.secret or random_secret()
        self.relay = RelayService(self._relay_settings, secret)
        try:
            self.relay.bind([self._host] if self._host else list(_WILDCARDS), self._stun_port)
            self.relay.protect([self._port])
            credentials = RelayCredentials(secret, self._relay_urls(), self.relay.challenge)
            self.rendezvous = Rendezvous(self.relay.port, credentials, self._store)
            await self._store.open(self.rendezvous)
            await self._serve(listener)
        except BaseException:
            listener.close()
            self.relay.close()
            await self._store.close()
            raise
        return self

    async def _serve(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        access = self._access
        welcome = self.rendezvous.welcome
        self._entrance = Entrance(welcome, self.health, loop.time, access.limits, access.proxies)
        self._connections = Connections(self._entrance, protocol.MAX_FRAME)
        if access.metrics is not None:
            await self._serve_metrics(*access.metrics)
        tls = None if self._certificate is None else self._certificate.context
        # A handshake of TLS comes before all else, and asyncio would wait a minute for it.
        patience = None if tls is None else websocket.OPEN_TIMEOUT
        self._listener = await loop.create_server(
            self._connections.accept, sock=listener, backlog=_BACKLOG, ssl=tls, ssl_handshake_timeout=patience
        )
        if self._certificate is not None:
            self._certificate.watch()

    async def _serve_metrics(self, host: str, port: int) -> None:
        from quice.server.metrics import MetricsHouse, registry_of

        watchers = Connections(MetricsHouse(registry_of(self), self.health), protocol.MAX_FRAME)
        listener = self._listen(host, port, "metrics")
        self.metrics = Address(host, listener.getsockname()[1])
        self._watched = await asyncio.get_running_loop().create_server(watchers.accept, sock=listener)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.relay.close()
        self._listener.close()
        if self._watched is not None:
            self._watched.close()
        if self._certificate is not None:
            self._certificate.close()
        for connection in self._connections:
            connection.close(CloseCode.GOING_AWAY)
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

    async def drain(self, seconds: float) -> None:
        """Take in nobody any more, send the peers elsewhere, and wait until they have gone and what they have sent is
        delivered, for so long at most.
        """
        self._listener.close()
        within = min(len(self.rendezvous) / _MOVES, seconds / 2)
        logger.info("draining: %d peers are sent elsewhere", len(self.rendezvous), extra=about(Event.DRAINING))
        self.rendezvous.leave(within)
        gone = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait([gone], timeout=seconds)
        finally:
            gone.cancel()

    async def _gone(self) -> None:
        await self._connections.wait_gone()
        await self._store.settle()

    def reload(self) -> None:
        """Load the certificate anew, if there is one."""
        if self._certificate is not None:
            self._certificate.reload()

    def health(self) -> Mapping[str, object]:
        """How the server is, for those who send peers to it."""
        status = "draining" if self.rendezvous.is_leaving else "degraded" if self.trouble else "ok"
        return {"status": status, "trouble": self.trouble}

    @property
    def trouble(self) -> str | None:
        """What is wrong, in words that tell nothing of the inside; None if nothing is."""
        return self._store.trouble

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    @property
    def turned_away(self) -> int:
        """How many connections were too many of one address."""
        return self._entrance.turned_away

    @property
    def url(self) -> str:
        """What peers name as their server, from the same network."""
        scheme = "ws" if self._access.certificate is None else "wss"
        return f"{scheme}://{Address(self._name(), self._port)}"

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

    def _listen(self, host: str | None, port: int, purpose: str) -> socket.socket:
        """A listening socket: one for both families when no address is given."""
        try:
            return self._machine.listen(host, port)
        except (OSError, ValueError) as error:
            where = f" of {host}" if host is not None else ""
            raise BindError(f"TCP port {port}{where} for {purpose}", error) from error

    def _name(self) -> str:
        """An address of this machine that peers can reach the server at."""
        if self._host is not None and self._host not in _WILDCARDS:
            return self._host
        families = [_WILDCARDS[self._host]] if self._host is not None else [4, 6]
        hosts = [local for local in self._machine.addresses() if local.ip.version in families]
        hosts.sort(key=lambda local: (local.ip.version, local.ip.is_link_local))
        return hosts[0].host if hosts else {4: "127.0.0.1", 6: "::1"}[families[0]]
