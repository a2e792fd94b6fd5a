"""Two endpoints on loopback, connected."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from quice import Address, Connection, Endpoint

ALPN = "test/1"


@dataclass
class Pair:
    """Two endpoints and a connection between them, as each side sees it."""

    client: Endpoint
    server: Endpoint
    near: Connection
    far: Connection


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    async with (
        Endpoint.bind(alpns=[ALPN], host="127.0.0.1") as server,
        Endpoint.bind(host="127.0.0.1") as client,
    ):
        near = await client.connect(server.peer, alpn=ALPN, address=Address("127.0.0.1", server.port))
        yield Pair(client, server, near, await server.accept())
