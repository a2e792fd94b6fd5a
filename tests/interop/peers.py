"""Whom a relay relays to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, cast

from interop.streaming import Streaming
from quice.turn import Allocated, Bound, Received
from quice.wire import Address

NAME = "relay.example"
"""Whom the certificate of a relay is for, besides the addresses of loopback."""
Peers = Callable[[str], tuple[socket.socket, Address]]
"""Makes UDP sockets on a host, with their addresses."""


class Peer(asyncio.DatagramProtocol):
    """Whom data is relayed to."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)
        self.address = Address(*transport.get_extra_info("sockname")[:2])

    def datagram_received(self, data: bytes, source: tuple[Any, ...]) -> None:
        self.heard.put_nowait((data, Address(*source[:2])))


def hear(peer: socket.socket) -> tuple[bytes, Address]:
    """What comes to a peer, and from where."""
    data, source = peer.recvfrom(1 << 16)
    return data, Address(*source[:2])


async def converse(client: Streaming, peer: Peer) -> None:
    """Data goes both ways, through a channel and with a permission alone; datagrams of odd lengths among it."""
    relayed = (await client.wait_for(Allocated)).relayed[0]
    now = asyncio.get_running_loop().time()
    client.client.permit([peer.address.host], now)
    client.client.send(b"by indication", peer.address, now)
    client.flush()
    assert await peer.heard.get() == (b"by indication", relayed)
    client.client.bind(peer.address, now)
    for length in range(1, 40):
        client.client.send(bytes([length]) * length, peer.address, now)
    client.flush()
    for length in range(1, 40):
        assert await peer.heard.get() == (bytes([length]) * length, relayed)
    await client.wait_for(Bound)
    for length in range(1, 40):
        peer.transport.sendto(bytes([length]) * length, tuple(relayed))
    await client.until(lambda: sum(isinstance(event, Received) for event in client.told) == 39)
    received = [event for event in client.told if isinstance(event, Received)]
    assert received == [Received(bytes([length]) * length, peer.address) for length in range(1, 40)]
