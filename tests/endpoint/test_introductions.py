"""Endpoints that find each other: through the rendezvous server, and over a channel of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from quice import Endpoint, Identity
from quice.errors import (
    ConnectTimeoutError,
    EndpointClosedError,
    PeerUnreachableError,
    RefusedError,
    ServerUnreachableError,
    SignallingClosedError,
)
from quice.server import Server
from quice.signal import signalling_pair
from tests.endpoint.conftest import ALPN


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with Server("127.0.0.1", 0, 0) as server:
        yield server.url


async def test_two_endpoints_that_name_the_same_server_connect(url: str) -> None:
    async with Endpoint.bind(server=url, alpns=[ALPN]) as server, Endpoint.bind(server=url) as client:
        near = await client.connect(server.peer, alpn=ALPN)
        far = await server.accept()
        assert (near.peer, far.peer) == (server.peer, client.peer)
        stream = await near.open_stream()
        await stream.write(b"hello")
        assert await (await far.accept_stream()).readexactly(5) == b"hello"
        for connection in (near, far):
            assert 0 < connection.connect_seconds < 5
            assert connection.report is not None
            assert connection.report.local_candidates
            assert connection.report.remote_candidates


async def test_both_connect_to_each_other_at_once(url: str) -> None:
    async with (
        Endpoint.bind(server=url, alpns=[ALPN]) as one,
        Endpoint.bind(server=url, alpns=[ALPN]) as other,
    ):
        near, far = await asyncio.gather(one.connect(other.peer, alpn=ALPN), other.connect(one.peer, alpn=ALPN))
        assert (await one.accept()).peer == near.peer == other.peer
        assert (await other.accept()).peer == far.peer == one.peer


async def test_twenty_peers_connect_to_one_at_once(url: str) -> None:
    async with Endpoint.bind(server=url, alpns=[ALPN]) as server:

        async def visit() -> None:
            async with Endpoint.bind(server=url) as client, await client.connect(server.peer, alpn=ALPN) as connection:
                assert connection.peer == server.peer

        await asyncio.gather(*(visit() for _ in range(20)))


async def test_endpoints_connect_over_signalling_of_the_application(url: str) -> None:
    ours, theirs = signalling_pair()
    async with Endpoint.bind() as client, Endpoint.bind(alpns=[ALPN]) as server:
        responding = asyncio.create_task(server.respond(client.peer, theirs))
        near = await client.connect(server.peer, alpn=ALPN, signalling=ours)
        assert (await server.accept()).peer == client.peer
        await responding
        assert near.peer == server.peer


async def test_a_peer_that_the_server_does_not_know_is_unreachable(url: str) -> None:
    async with Endpoint.bind(server=url) as client:
        with pytest.raises(PeerUnreachableError):
            await client.connect(Identity.generate().peer, alpn=ALPN)


async def test_a_peer_that_does_not_speak_the_alpn_refuses(url: str) -> None:
    async with Endpoint.bind(server=url, alpns=[ALPN]) as server, Endpoint.bind(server=url) as client:
        with pytest.raises(RefusedError):
            await client.connect(server.peer, alpn="other/1")


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(ServerUnreachableError):
        await Endpoint.bind(server="ws://127.0.0.1:9")


async def test_a_peer_that_never_answers_times_out() -> None:
    ours, _ = signalling_pair()
    async with Endpoint.bind() as client:
        with pytest.raises(ConnectTimeoutError):
            await client.connect(Identity.generate().peer, alpn=ALPN, signalling=ours, timeout=0.2)


async def test_signalling_that_ends_ends_the_attempt() -> None:
    ours, theirs = signalling_pair()
    async with Endpoint.bind() as client:
        connecting = asyncio.create_task(client.connect(Identity.generate().peer, alpn=ALPN, signalling=ours))
        await theirs.receive()
        await theirs.close()
        with pytest.raises(SignallingClosedError):
            await connecting


async def test_nobody_connects_to_itself(url: str) -> None:
    async with Endpoint.bind(server=url, alpns=[ALPN]) as endpoint:
        with pytest.raises(ValueError, match="the peer itself"):
            await endpoint.connect(endpoint.peer, alpn=ALPN)


async def test_a_connect_that_is_cancelled_leaves_an_endpoint_that_connects(url: str) -> None:
    async with Endpoint.bind(server=url, alpns=[ALPN]) as server, Endpoint.bind(server=url) as client:
        for turns in range(0, 60, 3):
            connecting = asyncio.create_task(client.connect(server.peer, alpn=ALPN))
            for _ in range(turns):
                await asyncio.sleep(0)
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
        near = await client.connect(server.peer, alpn=ALPN)
        assert near.peer == server.peer


async def test_accepting_ends_with_the_endpoint(url: str) -> None:
    endpoint = await Endpoint.bind(server=url, alpns=[ALPN])
    accepted = asyncio.create_task(anext(aiter(endpoint), None))
    await asyncio.sleep(0)
    await endpoint.close()
    assert await accepted is None
    with pytest.raises(EndpointClosedError):
        await endpoint.accept()
