"""A server that ends sends its peers elsewhere first."""

from __future__ import annotations

import asyncio
import contextlib
from urllib.parse import urlsplit

import pytest

from quice.identity import Identity
from quice.server import Server
from quice.server.relay import NO_RELAY
from quice.signal.messages import Offer
from quice.signal.protocol import Leaving
from quice.signal.rendezvous import RendezvousClient
from quice.signal.sealed import RendezvousSignalling
from tests.server.peers import raw_peer, until


@contextlib.asynccontextmanager
async def client(*urls: str):  # type: ignore[no-untyped-def]
    sessions: asyncio.Queue[RendezvousSignalling] = asyncio.Queue()
    made = RendezvousClient(urls, Identity.generate(), sessions.put_nowait)
    await made.start()
    try:
        yield made, sessions
    finally:
        await made.close()


async def test_peers_are_told_and_served_until_they_have_gone(server: Server) -> None:
    async with raw_peer(server) as one, raw_peer(server) as other:
        await one.registered()
        await other.registered()
        draining = asyncio.create_task(server.drain(20))
        assert isinstance(await one.receive(), Leaving)
        assert isinstance(await other.receive(), Leaving)
        await one.deliver(other.peer, b"still served")
        assert await other.body() == b"still served"
        assert server.health()["status"] == "draining"
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", urlsplit(server.url).port)
        await one.socket.close()
        assert not draining.done()
        await other.socket.close()
        await draining


async def test_who_does_not_go_is_left_behind_in_the_end(server: Server) -> None:
    loop = asyncio.get_running_loop()
    async with raw_peer(server) as stays:
        await stays.registered()
        started = loop.time()
        await server.drain(0.3)
        assert 0.25 < loop.time() - started < 2


async def test_a_client_goes_to_another_server_at_once_and_misses_nothing() -> None:
    offer = Offer(version=1, alpn="test/1", ufrag="ufrag", pwd="p" * 22)
    async with (
        Server("127.0.0.1", 0, 0, relay=NO_RELAY) as first,
        Server("127.0.0.1", 0, 0, relay=NO_RELAY) as second,
        client(first.url, second.url) as (one, _),
        client(first.url, second.url) as (other, sessions),
    ):
        registered = [one.is_registered, other.is_registered]
        near = one.open(other.identity.peer)
        await near.send(offer)
        far = await sessions.get()
        assert await far.receive() == offer
        draining = asyncio.create_task(first.drain(10))
        await until(lambda: one.url == other.url == second.url)
        assert registered == [True, True]
        assert len(second.rendezvous) == 2
        await asyncio.wait_for(draining, 5)
        await far.send(offer)
        assert await near.receive() == offer


async def test_a_client_without_another_server_stays_until_the_end_and_comes_back() -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server("127.0.0.1", 0, 0, relay=NO_RELAY))
        one, _ = await stack.enter_async_context(client(server.url))
        await server.drain(0.5)
        assert one.is_registered
        port = urlsplit(server.url).port
        assert port is not None
        await server.__aexit__(None, None, None)
        await until(lambda: not one.is_registered)
        again = await stack.enter_async_context(Server("127.0.0.1", port, 0, relay=NO_RELAY))
        await one.wait_registered()
        assert len(again.rendezvous) == 1
        # The stack ends the first server, which has ended.
        server._connections.cut_off()


async def test_one_that_ends_is_not_well(server: Server) -> None:
    parts = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    await until(lambda: server.connections == 1)
    draining = asyncio.create_task(server.drain(10))
    await asyncio.sleep(0)
    # On a connection that a proxy has had open.
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
    writer.close()
    await draining
