"""Peers of a relay, on loopback, and whom to trust."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from interop.certificates import certify
from quice.wire import Address
from tests.interop.peers import NAME, Peer, Peers


@pytest.fixture
def peers() -> Iterator[Peers]:
    """Makes UDP sockets that a relay can reach."""
    made: list[socket.socket] = []

    def make(host: str) -> tuple[socket.socket, Address]:
        peer = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        peer.bind((host, 0))
        peer.settimeout(5.0)
        made.append(peer)
        return peer, Address(*peer.getsockname()[:2])

    yield make
    for each in made:
        each.close()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(Peer, ("127.0.0.1", 0))
    yield protocol
    transport.close()


@pytest.fixture
def trust(tmp_path: Path) -> ssl.SSLContext:
    return certify(tmp_path, NAME, "127.0.0.1", "::1")
