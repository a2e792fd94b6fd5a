"""The rendezvous: peers register by proving their key, and messages go between them by PeerId."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from websockets.asyncio.server import ServerConnection, broadcast
from websockets.exceptions import ConnectionClosed

from quice.identity import PeerId
from quice.machine import this_machine
from quice.server.credentials import RelayCredentials
from quice.server.mailboxes import Mailboxes, MemoryMailboxes, source_of
from quice.signal import protocol
from quice.signal.protocol import (
    REFUSED,
    REPLACED,
    Challenge,
    Deliver,
    Delivered,
    MailboxToServer,
    ProtocolDecodeError,
    Refused,
    Register,
    Registered,
    Relays,
    ToPeer,
    Undeliverable,
)
from quice.wire import random_bytes

logger = logging.getLogger(__name__)

_REGISTER_TIMEOUT = 10.0
"""Seconds a connection may take to register."""
_RATE = 100.0
_BURST = 400.0
"""Messages a second, and at once, that one peer may send; a faster one waits."""
MAX_BUFFER = 256 << 10
"""Bytes that wait to be read by one peer; beyond that nothing more is delivered to it."""


class Rendezvous:
    """The peers that are here. One instance serves all WebSocket connections of a process."""

    def __init__(
        self,
        stun_port: int,
        relay_credentials: RelayCredentials,
        on_registered: Callable[[ServerConnection], None] = lambda connection: None,
    ) -> None:
        """`stun_port`: what peers are told of the STUN service; 0 for none. `on_registered`: told of each connection
        that has proven whose it is."""
        self._stun_port = stun_port
        self._relay_credentials = relay_credentials
        self._on_registered = on_registered
        self._peers: dict[PeerId, ServerConnection] = {}
        self._mailboxes = Mailboxes(MemoryMailboxes(asyncio.get_running_loop().time, this_machine().random))
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many peers are registered."""
        return len(self._peers)

    async def serve(self, connection: ServerConnection) -> None:
        """Serve one WebSocket connection to its end."""
        try:
            peer = await asyncio.wait_for(self._register(connection), _REGISTER_TIMEOUT)
        except ProtocolDecodeError as error:
            await self._refuse(connection, str(error))
            return
        except asyncio.TimeoutError:
            await self._refuse(connection, "no registration came in time")
            return
        except ConnectionClosed:
            return
        self._on_registered(connection)
        previous, self._peers[peer] = self._peers.get(peer), connection
        renewal: asyncio.Task[None] | None = None
        try:
            if previous is not None:
                # Whoever proves the key is the peer; a stale connection must not keep it from being reached.
                task = asyncio.create_task(previous.close(REPLACED, "registered again"))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)
            relays = self._relay_credentials.issue(peer, _host(connection))
            self._send(connection, Registered(stun_port=self._stun_port, relays=relays))
            if relays:
                renewal = asyncio.create_task(self._renew_credentials(peer, connection))
            await self._forward(peer, connection)
        except ProtocolDecodeError as error:
            await self._refuse(connection, str(error))
        except ConnectionClosed:
            pass
        finally:
            if renewal is not None:
                renewal.cancel()
            if self._peers.get(peer) is connection:
                del self._peers[peer]

    async def _register(self, connection: ServerConnection) -> PeerId:
        nonce = random_bytes(this_machine().random, protocol.NONCE_LENGTH)
        self._send(connection, Challenge(version=protocol.VERSION, nonce=nonce))
        register = protocol.decode_to_server(await connection.recv())
        if not isinstance(register, Register) or register.version != protocol.VERSION:
            raise ProtocolDecodeError(f"version {protocol.VERSION} of the protocol begins with a registration")
        peer = PeerId(register.peer)
        if not peer.verify(register.signature, protocol.signed_text(nonce, peer)):
            raise ProtocolDecodeError("the signature is wrong")
        if not register.replace and peer in self._peers:
            raise ProtocolDecodeError("this peer is registered on another connection")
        return peer

    async def _forward(self, peer: PeerId, connection: ServerConnection) -> None:
        loop = asyncio.get_running_loop()
        allowance, last = _BURST, loop.time()
        async for frame in connection:
            message = protocol.decode_to_server(frame)
            if isinstance(message, Register):
                raise ProtocolDecodeError("registered already")
            now = loop.time()
            allowance, last = min(_BURST, allowance + (now - last) * _RATE), now
            if allowance < 1:
                await asyncio.sleep((1 - allowance) / _RATE)
            allowance -= 1
            if not isinstance(message, Deliver):
                await self._keep_mail(peer, connection, message)
                continue
            receiver = self._peers.get(PeerId(message.to))
            delivered = Delivered(sender=peer.key, session=message.session, body=message.body)
            if receiver is None or not self._send(receiver, delivered):
                self._send(connection, Undeliverable(to=message.to, session=message.session))

    async def _keep_mail(self, peer: PeerId, connection: ServerConnection, message: MailboxToServer) -> None:
        for to, answer in await self._mailboxes.handle(peer, source_of(_host(connection)), message):
            receiver = connection if to == peer else self._peers.get(to)
            if receiver is not None:
                self._send(receiver, answer)

    async def _renew_credentials(self, peer: PeerId, connection: ServerConnection) -> None:
        """Give the peer new credentials well before it can't allocate with its own any more."""
        while True:
            await asyncio.sleep(self._relay_credentials.lifetime / 2)
            # Without room for it, what the peer has holds until the next time.
            self._send(connection, Relays(relays=self._relay_credentials.issue(peer, _host(connection))))

    def _send(self, connection: ServerConnection, message: ToPeer) -> bool:
        """Send without waiting for a slow reader; returns whether there was room for the message."""
        data = protocol.encode(message)
        if connection.transport.get_write_buffer_size() + len(data) > MAX_BUFFER:
            return False
        broadcast([connection], data)
        return True

    async def _refuse(self, connection: ServerConnection, text: str) -> None:
        logger.debug("refused: %s", text)
        self._send(connection, Refused(text=text))
        await connection.close(REFUSED, text)


def _host(connection: ServerConnection) -> str:
    """Where a peer comes from; on a socket of both families IPv4 comes in the clothes of IPv6 (RFC 4291 §2.5.5.2)."""
    address = connection.remote_address
    host = str(address[0]) if address else ""
    return host.removeprefix("::ffff:") if "." in host else host
