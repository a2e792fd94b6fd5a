"""`quice serve`: rendezvous on WebSocket and STUN on UDP, in one process."""

from __future__ import annotations

import logging
from types import TracebackType

from websockets.asyncio.server import Server as WebSocketServer
from websockets.asyncio.server import serve

from quice.errors import BindError
from quice.network import local_addresses
from quice.server.rendezvous import Rendezvous
from quice.server.stun import StunServer
from quice.signal import protocol
from quice.wire import Address

DEFAULT_PORT = 4780
"""TCP, for WebSocket."""
DEFAULT_STUN_PORT = 3478
"""UDP; STUN's own (RFC 8489 §18.6)."""

# Each failed handshake would be an error with a traceback; strangers are not to fill logs.
logging.getLogger("websockets.server").addFilter(lambda record: record.levelno < logging.ERROR)


class Server:
    """Everything peers need to find each other; an async context manager.

    host: a local address, or None for all of them, IPv4 and IPv6. port, stun_port: 0 lets the system choose.
    Entering it raises `BindError`.
    """

    def __init__(self, host: str | None = None, port: int = DEFAULT_PORT, stun_port: int = DEFAULT_STUN_PORT) -> None:
        self._host = host
        self._port = port
        self._stun_port = stun_port

    async def __aenter__(self) -> Server:
        self._stun = StunServer()
        try:
            self._stun.bind([self._host] if self._host else ["0.0.0.0", "::"], self._stun_port)  # noqa: S104
            self.rendezvous = Rendezvous(self._stun.port)
            self._web: WebSocketServer = await serve(
                self.rendezvous.serve,
                self._host,
                self._port,
                compression=None,
                max_size=protocol.MAX_FRAME,
                max_queue=8,
                open_timeout=10,
                close_timeout=2,
                server_header=None,
            )
        except OSError as error:
            self._stun.close()
            raise BindError(f"the WebSocket port {self._port}", error.strerror or str(error)) from error
        except BaseException:
            self._stun.close()
            raise
        self._port = next(iter(self._web.sockets)).getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stun.close()
        self._web.close()
        await self._web.wait_closed()

    @property
    def url(self) -> str:
        """What peers name as their server, from the same network."""
        return f"ws://{Address(self._name(), self._port)}"

    @property
    def stun(self) -> Address:
        """Where the STUN service answers."""
        return Address(self._name(), self._stun.port)

    def _name(self) -> str:
        if self._host:
            return self._host
        hosts = sorted(local_addresses(), key=lambda local: (local.ip.version, local.ip.is_link_local))
        return hosts[0].host if hosts else "127.0.0.1"
