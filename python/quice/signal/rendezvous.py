"""Signalling through a rendezvous server: one WebSocket for all sessions of an endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from quice.errors import PeerUnreachableError, ServerUnreachableError, SignallingClosedError
from quice.identity import Identity, PeerId
from quice.machine import this_machine
from quice.signal import protocol
from quice.signal.messages import Message, Offer, SignalDecodeError, decode, encode
from quice.signal.protocol import (
    SESSION_LENGTH,
    Challenge,
    Deliver,
    Delivered,
    ProtocolDecodeError,
    Refused,
    Register,
    Registered,
    Relays,
    RelayServer,
    ToPeer,
    ToServer,
    Undeliverable,
)
from quice.wire import Address, random_bytes

logger = logging.getLogger(__name__)

_CONNECT_TIMEOUT = 10.0
"""Seconds to open the WebSocket, and again to register."""
_CLOSE_TIMEOUT = 1.0
_KEEPALIVE = 20.0
"""Seconds between two pings to the server, and that it may take to answer one."""
_WRITE_LIMIT = 1 << 20
"""Bytes that may wait to be sent before `send` waits. Pings would wait with it, and a dead server not be noticed."""
_BACKOFF = (0.25, 15.0)
"""Seconds before the first and, doubled each time, at most before a later try to reach the server again."""
_MAX_SESSIONS = 256
_MAX_WAITING = 128
"""Messages of one session that wait to be received."""

Sessions = dict[tuple[PeerId, bytes], "RendezvousSignalling"]


class RendezvousSignalling:
    """One session with one peer, through the server."""

    def __init__(self, client: RendezvousClient, peer: PeerId, session: bytes) -> None:
        self.peer = peer
        self._client = client
        self._session = session
        self._incoming: asyncio.Queue[Message] = asyncio.Queue(_MAX_WAITING)
        self._ended: Exception | None = None
        self._changed = asyncio.Event()

    async def send(self, message: Message) -> None:
        """See `Signalling`. Raises `ServerUnreachableError` while the server can't be reached, and `ValueError`
        for a message that is too large for it.
        """
        if self._ended is not None:
            raise self._ended
        await self._client._send(Deliver(to=self.peer.key, session=self._session, body=encode(message)))

    async def receive(self) -> Message:
        """See `Signalling`. Raises `PeerUnreachableError` when the server does not know the peer."""
        while self._incoming.empty():
            if self._ended is not None:
                raise self._ended
            self._changed.clear()
            await self._changed.wait()
        return self._incoming.get_nowait()

    async def close(self) -> None:
        """See `Signalling`."""
        self._client._sessions.pop((self.peer, self._session), None)
        self._end(SignallingClosedError())

    def _take(self, message: Message) -> None:
        if self._incoming.full():
            self._end(SignallingClosedError())
        else:
            self._incoming.put_nowait(message)
        self._changed.set()

    def _end(self, error: Exception) -> None:
        if self._ended is None:
            self._ended = error
        self._changed.set()


class RendezvousClient:
    """A peer's registration with a rendezvous server, kept up for as long as it lives.

    `on_session` is called with each session that another peer begins with us, `on_relays` whenever `relays` is new:
    with each registration, and each time the server renews their credentials.
    """

    def __init__(
        self,
        url: str,
        identity: Identity,
        on_session: Callable[[RendezvousSignalling], None],
        on_relays: Callable[[tuple[RelayServer, ...]], None] | None = None,
    ) -> None:
        self.url = url
        self.stun_servers: tuple[Address, ...] = ()
        """The server's STUN service, at each of the addresses that the URL's host has."""
        self.relays: tuple[RelayServer, ...] = ()
        """The relays that the server offers, with credentials for them."""
        self.on_relays = on_relays
        self._identity = identity
        self._rng = this_machine().random
        self._on_session = on_session
        self._sessions: Sessions = {}
        self._socket: ClientConnection | None = None
        self._trouble = "this endpoint is not registered with it"
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Register. Raises `ServerUnreachableError` when that fails; later losses are mended quietly."""
        self._socket = await self._register()
        self._keeper = asyncio.create_task(self._keep(), name="quice rendezvous")

    async def close(self) -> None:
        """Leave the server; all sessions end."""
        self._trouble = "this endpoint is closed"
        for session in list(self._sessions.values()):
            await session.close()
        try:
            if self._keeper is not None:
                self._keeper.cancel()
                await asyncio.gather(self._keeper, return_exceptions=True)
            if self._socket is not None:
                await self._socket.close()
        finally:
            # Cancelled, it would stay open.
            websocket, self._socket = self._socket, None
            if websocket is not None:
                websocket.transport.abort()

    def open(self, peer: PeerId) -> RendezvousSignalling:
        """Begin a session with a peer; the first message tells it."""
        session = random_bytes(self._rng, SESSION_LENGTH)
        signalling = self._sessions[peer, session] = RendezvousSignalling(self, peer, session)
        return signalling

    async def _register(self, *, replace: bool = True) -> ClientConnection:
        try:
            # The environment's proxies are for browsing; one that is in the way of the server is not expected.
            websocket = await connect(
                self.url,
                compression=None,
                proxy=None,
                max_size=protocol.MAX_FRAME,
                open_timeout=_CONNECT_TIMEOUT,
                close_timeout=_CLOSE_TIMEOUT,
                ping_interval=_KEEPALIVE,
                ping_timeout=_KEEPALIVE,
                write_limit=_WRITE_LIMIT,
            )
        except (OSError, asyncio.TimeoutError, WebSocketException, ValueError) as error:
            raise ServerUnreachableError(self.url, str(error)) from error
        # Not wait_for, which can lose a cancellation that comes together with the result (before Python 3.12).
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(_CONNECT_TIMEOUT, websocket.transport.abort)
        try:
            await self._introduce(websocket, replace)
        except (OSError, WebSocketException, ProtocolDecodeError) as error:
            await _close(websocket)
            why = "no answer in time" if loop.time() >= deadline.when() else f"it is no rendezvous server: {error}"
            raise ServerUnreachableError(self.url, why) from error
        except BaseException:
            await _close(websocket)
            raise
        finally:
            deadline.cancel()
        return websocket

    async def _introduce(self, websocket: ClientConnection, replace: bool) -> None:
        challenge = protocol.decode_to_peer(await websocket.recv())
        if not isinstance(challenge, Challenge) or challenge.version != protocol.VERSION:
            raise ServerUnreachableError(self.url, "it speaks another version of the protocol")
        peer = self._identity.peer
        signature = self._identity.sign(protocol.signed_text(challenge.nonce, peer))
        register = Register(version=protocol.VERSION, peer=peer.key, signature=signature, replace=replace)
        await websocket.send(protocol.encode(register))
        answer = protocol.decode_to_peer(await websocket.recv())
        if not isinstance(answer, Registered):
            why = f": {answer.text}" if isinstance(answer, Refused) else ""
            raise ServerUnreachableError(self.url, f"it refused the registration{why}")
        self.stun_servers = await _addresses(self.url, answer.stun_port)
        self._take_relays(answer.relays)

    async def _keep(self) -> None:
        """Receive, and register again whenever the server goes away."""
        loop = asyncio.get_running_loop()
        delay, replaced = _BACKOFF[0], False
        while True:
            if self._socket is not None:
                since = loop.time()
                with contextlib.suppress(WebSocketException):
                    async for frame in self._socket:
                        self._receive(frame)
                replaced = self._socket.close_code == protocol.REPLACED
                self._socket = None
                if replaced:
                    self._trouble = "another program has registered with this identity, which takes one at a time"
                    logger.warning("%s; this one waits until it is gone", self._trouble)
                    delay = _BACKOFF[1]
                else:
                    self._trouble = "the connection to it is lost"
                    logger.info("the rendezvous server is gone; trying to reach it again")
                    # A server that ends each connection soon is not to be pressed.
                    if loop.time() - since > _BACKOFF[1]:
                        delay = _BACKOFF[0]
            # Jittered, so that all of a server's peers do not come back at the same moment.
            await asyncio.sleep(delay * (0.5 + self._rng.getrandbits(16) / (2 << 16)))
            delay = min(2 * delay, _BACKOFF[1])
            with contextlib.suppress(ServerUnreachableError):
                self._socket = await self._register(replace=not replaced)

    def _receive(self, frame: bytes | str) -> None:
        try:
            message: ToPeer = protocol.decode_to_peer(frame)
        except ProtocolDecodeError as error:
            logger.debug("a message of the server that is none: %s", error)
            return
        match message:
            case Delivered():
                self._deliver(message)
            case Relays(relays=relays):
                self._take_relays(relays)
            case Undeliverable():
                key = (PeerId(message.to), message.session)
                if (session := self._sessions.get(key)) is not None:
                    session._end(PeerUnreachableError(str(session.peer)))
            case _:
                logger.debug("unexpected from the server: %s", type(message).__name__)

    def _take_relays(self, relays: tuple[RelayServer, ...]) -> None:
        here = urlsplit(self.url).hostname or ""
        here = f"[{here}]" if ":" in here else here
        self.relays = tuple(
            msgspec.structs.replace(relay, urls=tuple(_at_host(url, here) for url in relay.urls)) for relay in relays
        )
        if self.on_relays is not None:
            self.on_relays(self.relays)

    def _deliver(self, message: Delivered) -> None:
        try:
            sender = PeerId(message.sender)
            body = decode(message.body)
        except (SignalDecodeError, ValueError) as error:
            logger.debug("a message of a peer that is none: %s", error)
            return
        session = self._sessions.get((sender, message.session))
        if session is None:
            # Anything but an offer is late: for a session that is closed here.
            if not isinstance(body, Offer) or len(self._sessions) >= _MAX_SESSIONS:
                return
            session = self._sessions[sender, message.session] = RendezvousSignalling(self, sender, message.session)
            session._take(body)
            self._on_session(session)
        else:
            session._take(body)

    async def _send(self, message: ToServer) -> None:
        if self._socket is None:
            raise ServerUnreachableError(self.url, self._trouble)
        try:
            await self._socket.send(protocol.encode(message))
        except WebSocketException as error:
            raise ServerUnreachableError(self.url, str(error)) from error


def _at_host(url: str, host: str) -> str:
    """A relay's URL, with the rendezvous server's host where it names none (see `protocol.SAME_HOST`)."""
    scheme, separator, rest = url.partition(":")
    is_same = rest.startswith(":") or not rest.partition("?")[0]
    return f"{scheme}:{host}{rest}" if separator and is_same else url


async def _close(websocket: ClientConnection) -> None:
    try:
        await websocket.close()
    finally:
        websocket.transport.abort()


async def _addresses(url: str, port: int) -> tuple[Address, ...]:
    host = urlsplit(url).hostname
    if not host or not port:
        return ()
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError:
        return ()
    return tuple(dict.fromkeys(Address(_host(sockaddr), port) for *_, sockaddr in found))


def _host(sockaddr: tuple[Any, ...]) -> str:
    # For IPv6 the last part is the zone, by its number; 0 for addresses without one.
    host, *_, zone = sockaddr
    return f"{host}%{socket.if_indextoname(zone)}" if len(sockaddr) == 4 and zone else str(host)
