"""Who is let in, and what is said to who only asks."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
from collections.abc import Sequence
from urllib.parse import urlsplit

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from quice.server import Server, websocket
from quice.server.entrance import Access, client_of
from quice.server.sources import SourceLimits, Sources, source_of
from tests.server.peers import raw_peer, until

PROXIES = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8")]


async def get(host: str, port: int, path: str) -> tuple[int, dict[str, str], bytes]:
    """Ask over HTTP: status, headers, body."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), body


async def health_of(server: Server) -> tuple[int, dict[str, object]]:
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    assert parts.port is not None
    status, headers, body = await get(parts.hostname, parts.port, "/healthz")
    assert headers["content-type"] == "application/json"
    return status, json.loads(body)


async def test_a_server_says_that_it_is_well(server: Server) -> None:
    assert await health_of(server) == (200, {"status": "ok", "trouble": None})
    await until(lambda: server.connections == 0)


async def test_metrics_are_not_for_everybody(server: Server) -> None:
    parts = urlsplit(server.url)
    status, _, _ = await get(str(parts.hostname), parts.port or 0, "/metrics")
    assert status == 426


@pytest.mark.parametrize(
    ("host", "forwarded", "client"),
    [
        ("192.0.2.1", [], "192.0.2.1"),
        # Said by nobody who is believed.
        ("192.0.2.1", ["198.51.100.7"], "192.0.2.1"),
        ("10.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7, 10.9.9.9"], "198.51.100.7"),
        ("10.0.0.1", ["198.51.100.7", "10.9.9.9"], "198.51.100.7"),
        # What stands before the client's own address is the client's word.
        ("10.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),
        ("10.0.0.1", ["203.0.113.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("fd00::1", ["2001:db8::5"], "2001:db8::5"),
        ("", ["198.51.100.7"], ""),
    ],
)
def test_only_proxies_that_are_named_are_believed(host: str, forwarded: Sequence[str], client: str) -> None:
    assert client_of(host, forwarded, PROXIES) == client


def test_a_source_is_an_ipv4_address_or_an_ipv6_network() -> None:
    assert source_of("192.0.2.1") == "192.0.2.1"
    assert source_of("2001:db8:1:2:3:4:5:6") == source_of("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    assert source_of("fe80::1%eth0") == "fe80::/64"
    assert source_of("somewhere") == "somewhere"
    assert source_of("") == ""


def test_a_source_has_so_many_at_once_and_comes_so_often() -> None:
    sources = Sources(SourceLimits(at_once=3, rate=1.0))
    assert [sources.enter("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert sources.enter("b", 0.0)
    sources.leave("a")
    # There is room, but it came a moment ago.
    assert not sources.enter("a", 0.5)
    assert sources.enter("a", 1.5)
    assert not sources.enter("a", 100.0)


def test_sources_that_have_gone_long_ago_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quice.server.sources._MANY", 100)
    sources = Sources(SourceLimits(at_once=10, rate=1.0))
    assert sources.enter("stays", 0.0)
    for number in range(1000):
        assert sources.enter(str(number), float(number))
        sources.leave(str(number))
    assert len(sources.uses) <= 101
    assert "stays" in sources.uses


async def test_a_flood_of_registrations_from_one_address_ends_at_its_limit() -> None:
    access = Access(SourceLimits(at_once=5, rate=0.01))
    async with Server("127.0.0.1", 0, 0, access=access) as server, contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await (await stack.enter_async_context(raw_peer(server))).registered()
        with pytest.raises(InvalidStatus) as refused:
            await stack.enter_async_context(raw_peer(server))
        assert refused.value.response.status_code == 429
        assert server.turned_away == 1
        # Elsewhere there is room; here, asking how the server is costs nothing.
        async with connect(server.url, local_addr=("127.0.0.2", 0), proxy=None):
            pass
        assert (await health_of(server))[0] == 200


async def test_behind_a_proxy_limits_are_for_the_addresses_behind_it() -> None:
    access = Access(SourceLimits(at_once=1, rate=0.01), proxies=(ipaddress.ip_network("127.0.0.0/8"),))
    async with Server("127.0.0.1", 0, 0, access=access) as server, contextlib.AsyncExitStack() as stack:
        for number in range(3):
            behind = {"X-Forwarded-For": f"198.51.100.{number}"}
            peer = await stack.enter_async_context(raw_peer(server, additional_headers=behind))
            await peer.registered()
        with pytest.raises(InvalidStatus):
            await stack.enter_async_context(raw_peer(server, additional_headers=behind))


async def test_who_does_not_read_the_answers_to_its_pings_is_not_listened_to(server: Server) -> None:
    parts = urlsplit(server.url)
    async with raw_peer(server) as peer:
        await peer.registered()
        (served,) = server._connections
        peer.socket.transport.pause_reading()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + 20
        # A masked ping with 125 bytes.
        ping = b"\x89\xfd\0\0\0\0" + bytes(125)
        while not served._holds and loop.time() < deadline:
            peer.socket.transport.write(ping * 1000)
            await asyncio.sleep(0.01)
            assert served.transport.get_write_buffer_size() < 2 * websocket.MAX_BUFFER
        assert served._holds
        peer.socket.transport.abort()
    assert parts.port
