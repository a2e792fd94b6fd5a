"""Two endpoints on loopback, connected, on each kind of event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
import uvloop

from quice import Address, Connection, Endpoint

ALPN = "test/1"


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Every test here runs on both event loops."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


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
