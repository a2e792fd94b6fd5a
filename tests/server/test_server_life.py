"""A server's addresses, and how it begins and ends."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import socket
from urllib.parse import urlsplit

import pytest

from interop.relays import free_port
from quice.errors import BindError
from quice.network import local_addresses
from quice.server import Server, app
from tests.server.peers import interrupted_everywhere, raw_peer
from tests.server.test_load import deaf_peer, fill


def port_of(server: Server) -> int:
    port = urlsplit(server.url).port
    assert port is not None
    return port


async def open_socket(host: str, port: int) -> socket.socket:
    channel = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    channel.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(channel, (host, port))
    except OSError:
        channel.close()
        raise
    return channel


@pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
async def test_the_url_names_the_address_and_the_port_that_were_bound(host: str, shown: str) -> None:
    async with Server(host, 0, 0) as server:
        assert server.url == f"ws://{shown}:{port_of(server)}"
        assert str(server.stun) == f"{shown}:{server.stun.port}"
        assert port_of(server) > 0
        assert server.stun.port > 0
        async with raw_peer(server) as peer:
            await peer.registered()


async def test_a_server_on_every_address_has_one_port_for_both_families() -> None:
    async with Server(None, 0, 0) as server:
        for host in ("127.0.0.1", "::1"):
            (await open_socket(host, port_of(server))).close()
        async with raw_peer(server) as peer:
            await peer.registered()


@pytest.mark.parametrize("host", [None, "127.0.0.1"])
async def test_what_the_server_says_does_not_wait_for_what_it_said_before_to_be_acknowledged(host: str | None) -> None:
    async with Server(host, 0, 0) as server, raw_peer(server) as peer:
        await peer.registered()
        (websocket,) = server._connections
        accepted = websocket.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("host", [None, "0.0.0.0", "::"])
async def test_the_url_of_a_server_on_every_address_is_one_that_peers_can_use(host: str | None) -> None:
    async with Server(host, 0, 0) as server:
        name = urlsplit(server.url).hostname
        assert name is not None
        ip = ipaddress.ip_address(name)
        assert not ip.is_unspecified
        assert name in {local.host for local in local_addresses()} | {"::1", "127.0.0.1"}
        assert server.stun.host == name
        assert host is None or ip.version == ipaddress.ip_address(host).version


@pytest.mark.parametrize("host", [None, "127.0.0.1"])
async def test_a_busy_tcp_port_is_named_and_nothing_stays_bound(host: str | None) -> None:
    stun_port = free_port()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=f"TCP port {port} .*in use. Choose another port"):
            await Server(host, port, stun_port).__aenter__()
    async with Server("127.0.0.1", port, stun_port) as server:
        assert server.stun.port == stun_port


@pytest.mark.parametrize(("host", "busy"), [(None, "127.0.0.1"), (None, "::"), ("127.0.0.1", "127.0.0.1")])
async def test_a_busy_stun_port_is_named_and_the_tcp_port_is_free_again(host: str | None, busy: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in busy else socket.AF_INET, socket.SOCK_DGRAM) as taken:
        if ":" in busy:
            taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind((busy, 0))
        stun_port = taken.getsockname()[1]
        server = Server(host, 0, stun_port)
        with pytest.raises(BindError, match=f"UDP port {stun_port} .*in use"):
            await server.__aenter__()
    async with Server("127.0.0.1", server._port, 0):
        pass


async def test_a_machine_without_ipv6_is_served_on_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    create = socket.create_server

    def without_ipv6(*arguments: object, **options: object) -> socket.socket:
        if options.get("family") == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return create(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    async with Server(None, 0, 0) as server:
        (await open_socket("127.0.0.1", port_of(server))).close()
        with pytest.raises(ConnectionRefusedError):
            await open_socket("::1", port_of(server))


@pytest.mark.parametrize("host", ["localhost", "", "127.0.0.1:80", "fe80::1%nowhere"])
async def test_a_host_that_is_no_local_ip_address_is_named(host: str) -> None:
    with pytest.raises(BindError, match=r"cannot bind .*\. Name an address of this machine"):
        await Server(host, 0, 0).__aenter__()


async def test_a_server_can_take_its_port_again_at_once() -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server("127.0.0.1", 0, 0))
        async with raw_peer(server) as peer:
            await peer.registered()
            # The side that closes first keeps the address for a while.
            await asyncio.gather(stack.aclose(), peer.ended())
    async with Server("127.0.0.1", port_of(server), 0) as again:
        assert again.url == server.url


async def test_a_peer_is_told_when_the_server_ends() -> None:
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(Server("127.0.0.1", 0, 0))
        async with raw_peer(server) as peer:
            await peer.registered()
            ending = asyncio.create_task(stack.aclose())
            # RFC 6455 §7.4.1: 1001 is going away.
            assert (await peer.ended())[0] == 1001
            await ending


async def test_nobody_can_hold_up_a_server_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "CLOSE_TIMEOUT", 0.2)
    monkeypatch.setattr("quice.server.rendezvous._BURST", 1e9)
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        server = Server("127.0.0.1", 0, 0)
        await server.__aenter__()
        silent = stack.enter_context(await open_socket("127.0.0.1", port_of(server)))
        half = stack.enter_context(await open_socket("127.0.0.1", port_of(server)))
        await loop.sock_sendall(half, b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n")
        sender = await stack.enter_async_context(raw_peer(server))
        await sender.registered()
        unregistered = await stack.enter_async_context(raw_peer(server))
        await unregistered.receive()
        deaf = await stack.enter_async_context(deaf_peer(server))
        await fill(server, sender, deaf)
        started = loop.time()
        await server.__aexit__(None, None, None)
        assert loop.time() - started < 1
        assert len(server._connections) == 0
        assert await loop.sock_recv(silent, 100) == b""


async def test_entering_a_server_can_be_cancelled_at_every_turn() -> None:
    async def attempt() -> None:
        async with Server("127.0.0.1", 0, 0):
            pass

    await interrupted_everywhere(attempt)
    assert {task for task in asyncio.all_tasks() if "quice" in repr(task) or "websockets" in repr(task)} == set()


async def test_leaving_a_server_can_be_cancelled_at_every_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "CLOSE_TIMEOUT", 0.1)
    for turns in range(1, 12):
        server = Server("127.0.0.1", 0, 0)
        await server.__aenter__()
        async with raw_peer(server) as peer:
            await peer.registered()
            leaving = asyncio.ensure_future(server.__aexit__(None, None, None))
            for _ in range(turns):
                await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            await peer.ended()
        with pytest.raises(ConnectionRefusedError):
            await open_socket("127.0.0.1", port_of(server))
