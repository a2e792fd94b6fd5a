"""The TURN service on loopback: its sockets, its data path in Rust, and what it lets through."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect

from quice.identity import Identity
from quice.server import Server
from quice.server import credentials as app_credentials
from quice.server.relay import RelaySettings
from quice.signal.protocol import Registered, Relays
from quice.stun.attributes import Data, XorPeerAddress
from quice.stun.auth import LongTerm
from quice.stun.message import Kind, Message, Method
from quice.turn.allocation import AddressFamilies
from quice.turn.channel import encode_channel_data
from quice.turn.credentials import time_limited
from quice.turn.events import Allocated, Bound, Failed, Lost, PermissionRefused, Received
from quice.wire import Address
from tests.server.peers import RawPeer, raw_peer, until
from tests.server.relayed import SECRET, RelayedPeer, credentials, relayed_peer, sink

ANYWHERE = ("127.0.0.0/8", "::1/128")
Serve = Callable[..., Any]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server with settings for its relay."""
    servers: list[Server] = []

    async def start(*allow: str, host: str | None = "127.0.0.1", **settings: Any) -> Server:
        networks = tuple(ipaddress.ip_network(network) for network in allow)
        server = Server(host, 0, 0, relay=RelaySettings(secret=SECRET, allow=networks, **settings))
        servers.append(await server.__aenter__())
        return server

    yield start
    for server in servers:
        await server.__aexit__(None, None, None)


async def arrived(plain: socket.socket) -> tuple[bytes, Address]:
    data, source = await asyncio.get_running_loop().sock_recvfrom(plain, 65536)
    return data, Address(*source[:2])


async def connected(peer: RelayedPeer, to: Address) -> None:
    """Allocate, and bind a channel."""
    await peer.event(Allocated)
    peer.bind(to)
    await peer.event(Bound)


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_data_goes_both_ways_through_a_channel(serve: Serve, host: str, tcp: bool) -> None:
    server = await serve(*ANYWHERE, host=host)
    families = AddressFamilies.IPV6 if ":" in host else AddressFamilies.IPV4
    async with relayed_peer(server, tcp=tcp, families=families) as peer, sink(host) as (plain, at):
        await connected(peer, at)
        for data in (b"hello", b"", b"x" * 1200, b"y" * 9000):
            peer.send(data, at)
            assert await arrived(plain) == (data, peer.relayed[0])
            plain.sendto(data, peer.relayed[0])
            assert await peer.received() == (data, at)


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
async def test_data_goes_both_ways_in_indications(serve: Serve, tcp: bool) -> None:
    server = await serve(*ANYWHERE)
    async with relayed_peer(server, tcp=tcp) as peer, sink() as (plain, at):
        await peer.event(Allocated)
        peer.permit(at)
        await until(lambda: not peer.client._requests)
        for data in (b"hello", b"x", b"x" * 1201):
            peer.send(data, at)
            assert await arrived(plain) == (data, peer.relayed[0])
            plain.sendto(data, peer.relayed[0])
            assert await peer.received() == (data, at)


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
async def test_clients_of_one_relay_reach_each_other_though_its_address_is_forbidden(serve: Serve, tcp: bool) -> None:
    server = await serve()
    async with relayed_peer(server, tcp=tcp) as one, relayed_peer(server) as other:
        await one.event(Allocated)
        await other.event(Allocated)
        await connected_to_each_other(one, other)
        one.send(b"there", other.relayed[0])
        assert await other.received() == (b"there", one.relayed[0])
        other.send(b"and back", one.relayed[0])
        assert await one.received() == (b"and back", other.relayed[0])
        counts = server.relay.counts
        assert (counts.packets_to_peers, counts.bytes_to_peers) == (2, 13)
        assert (counts.packets_to_clients, counts.bytes_to_clients) == (2, 13)


async def connected_to_each_other(one: RelayedPeer, other: RelayedPeer) -> None:
    one.bind(other.relayed[0])
    other.bind(one.relayed[0])
    await one.event(Bound)
    await other.event(Bound)


async def test_many_datagrams_of_many_sizes_arrive_whole_and_in_order(serve: Serve) -> None:
    server = await serve(*ANYWHERE, rate=None)
    sizes = [1200] * 30 + [700, 1200, 1, 1300, 1200, 0, 1200] + [9] * 30
    async with relayed_peer(server) as peer, sink() as (plain, at):
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        await connected(peer, at)
        sent = [bytes([number]) * size for number, size in enumerate(sizes)]
        for data in sent:
            peer.send(data, at)
        assert [(await arrived(plain))[0] for _ in sent] == sent
        for data in sent:
            plain.sendto(data, peer.relayed[0])
        assert [(await peer.received())[0] for _ in sent] == sent


@pytest.mark.parametrize("host", ["127.0.0.2", "10.0.0.1", "169.254.169.254", "192.168.1.1", "224.0.0.1"])
async def test_a_forbidden_peer_gets_no_permission_and_no_data(serve: Serve, host: str) -> None:
    server = await serve()
    async with relayed_peer(server) as peer:
        await peer.event(Allocated)
        peer.permit(Address(host, 1))
        refused = await peer.event(PermissionRefused)
        assert refused.code == 403
        send_anyway(peer, Address(host, 9))
        await dropped(server, "no permission")


def send_anyway(peer: RelayedPeer, to: Address) -> None:
    """A Send indication that nobody has asked a permission for."""
    message = Message(Method.SEND, Kind.INDICATION, bytes(12), (XorPeerAddress(to), Data(b"data")))
    peer._transport.sendto(message.encode(), tuple(peer._server))


async def dropped(server: Server, reason: str, count: int = 1) -> None:
    await until(lambda: server.relay.counts.drops.get(reason, 0) >= count)


@pytest.mark.parametrize("allow", [(), ANYWHERE], ids=["by default", "even where the network is named"])
async def test_nothing_reaches_the_servers_own_ports(serve: Serve, allow: tuple[str, ...]) -> None:
    server = await serve(*allow)
    request = Message(Method.BINDING, Kind.REQUEST, bytes(12)).encode()
    async with relayed_peer(server) as peer, relayed_peer(server) as other:
        await peer.event(Allocated)
        await other.event(Allocated)
        # The permission is one for the host: that of relayed addresses.
        peer.permit(other.relayed[0])
        await until(lambda: not peer.client._requests)
        rendezvous = Address("127.0.0.1", int(server.url.rpartition(":")[2]))
        for target in (server.stun, rendezvous):
            peer.send(request, target)
        await dropped(server, "forbidden", 2)
        assert server.relay.counts.packets_to_peers == 0


async def test_the_servers_own_ports_are_closed_on_every_address_of_loopback(serve: Serve) -> None:
    server = await serve(*ANYWHERE)
    async with relayed_peer(server) as peer:
        await peer.event(Allocated)
        peer.permit(Address("127.0.0.9", 1))
        await until(lambda: not peer.client._requests)
        peer.send(b"data", Address("127.0.0.9", server.stun.port))
        await dropped(server, "forbidden")


async def test_a_local_port_that_is_no_relayed_address_is_not_reached_unless_named(serve: Serve) -> None:
    server = await serve()
    async with relayed_peer(server) as peer, sink() as (plain, at):
        await peer.event(Allocated)
        peer.permit(at)
        await until(lambda: not peer.client._requests)
        peer.send(b"data", at)
        await dropped(server, "forbidden")
        with pytest.raises(BlockingIOError):
            plain.recv(100)


async def test_who_has_no_permission_reaches_no_client(serve: Serve) -> None:
    server = await serve(*ANYWHERE)
    async with relayed_peer(server) as peer, sink() as (plain, _), sink("127.0.0.1") as (_, at):
        await peer.event(Allocated)
        plain.sendto(b"unasked", peer.relayed[0])
        await dropped(server, "no permission")
        peer.permit(at)
        await until(lambda: not peer.client._requests)
        plain.sendto(b"asked", peer.relayed[0])
        assert (await peer.received())[0] == b"asked"


async def test_noise_and_data_of_strangers_are_dropped_and_counted(serve: Serve) -> None:
    server = await serve(*ANYWHERE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(tuple(server.stun))
        stranger.send(encode_channel_data(0x4000, b"data"))
        await dropped(server, "no allocation")
        for data in (b"", b"\xff" * 100, b"\x40\0\xff\xff", b"\0\1\0\0" + bytes(16)):
            stranger.send(data)
        await dropped(server, "malformed", 4)
    async with relayed_peer(server) as peer:
        await peer.event(Allocated)
        peer._transport.sendto(encode_channel_data(0x4001, b"data"), tuple(server.stun))
        await dropped(server, "no channel")


async def test_one_peers_allocations_share_one_rate_and_others_have_their_own(serve: Serve) -> None:
    server = await serve(*ANYWHERE, rate=10_000.0)
    async with (
        relayed_peer(server) as one,
        relayed_peer(server) as same,
        relayed_peer(server, credentials("another")) as other,
        sink() as (_, at),
    ):
        for peer in (one, same, other):
            await connected(peer, at)
        for _ in range(10):
            one.send(bytes(1000), at)
            same.send(bytes(1000), at)
        # It fills again while this runs: by one packet in a tenth of a second.
        await dropped(server, "rate", 5)
        before = server.relay.counts.drops["rate"]
        for _ in range(10):
            other.send(bytes(1000), at)
        await until(lambda: server.relay.counts.packets_to_peers >= 20)
        assert server.relay.counts.drops["rate"] == before


async def test_one_peer_has_as_many_allocations_as_its_quota(serve: Serve) -> None:
    server = await serve(quota=1)
    async with relayed_peer(server) as one:
        await one.event(Allocated)
        async with relayed_peer(server) as another:
            assert (await another.event(Failed)).code == 486
        async with relayed_peer(server, credentials("somebody else")) as other:
            await other.event(Allocated)


async def test_relayed_addresses_are_of_both_families_where_the_server_has_them(serve: Serve) -> None:
    server = await serve(host=None)
    at = Address("127.0.0.1", server.stun.port)
    async with relayed_peer(at, families=AddressFamilies.BOTH) as peer:
        await peer.event(Allocated)
        hosts = {address.ip.version for address in peer.relayed}
        has_ipv6 = any(
            local.ip.version == 6 and not local.ip.is_link_local for local in server.relay._machine.addresses()
        )
        assert hosts == ({4, 6} if has_ipv6 else {4})


async def test_relayed_addresses_are_told_as_the_operator_names_them(serve: Serve) -> None:
    server = await serve(addresses=("203.0.113.77",))
    async with relayed_peer(server) as one, relayed_peer(server) as other:
        await one.event(Allocated)
        await other.event(Allocated)
        assert {one.relayed[0].host, other.relayed[0].host} == {"203.0.113.77"}
        await connected_to_each_other(one, other)
        one.send(b"within", other.relayed[0])
        assert await other.received() == (b"within", one.relayed[0])


async def test_relayed_ports_are_those_that_the_operator_names_and_have_an_end(serve: Serve) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = await serve(ports=range(port, port + 1))
    async with relayed_peer(server) as peer:
        await peer.event(Allocated)
        assert peer.relayed[0].port == port
        async with relayed_peer(server) as another:
            assert (await another.event(Failed)).code == 508


async def test_a_relayed_port_that_somebody_else_has_is_passed_over(serve: Serve) -> None:
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(8)]
        while True:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind(("127.0.0.1", 0))
                first = probe.getsockname()[1]
            try:
                for offset, one in enumerate(taken):
                    one.bind(("127.0.0.1", first + offset))
                break
            except OSError:
                taken = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(8)]
        # One of two ports is free; of 32 that are tried, so is one but once in four thousand million times.
        server = await serve(ports=range(first + 7, first + 9))
        async with relayed_peer(server) as peer:
            await peer.event(Allocated)
            assert peer.relayed[0].port == first + 8


async def test_an_address_is_free_again_when_its_allocation_is_released(serve: Serve) -> None:
    server = await serve()
    async with relayed_peer(server) as peer:
        await peer.event(Allocated)
        relayed = peer.relayed[0]
    await until(lambda: not len(server.relay.turn))

    def is_free() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(relayed)
            except OSError:
                return False
            return True

    await until(is_free)


async def test_what_was_allocated_over_tcp_goes_with_the_connection(serve: Serve) -> None:
    server = await serve()
    async with relayed_peer(server, tcp=True) as peer:
        await peer.event(Allocated)
        peer.close(release=False)
        await until(lambda: not len(server.relay.turn))


async def test_a_slow_reader_on_tcp_loses_data_and_keeps_its_allocation(serve: Serve) -> None:
    server = await serve(*ANYWHERE, rate=None)
    async with relayed_peer(server, tcp=True) as peer, sink() as (plain, at):
        await connected(peer, at)
        peer._transport.pause_reading()  # type: ignore[attr-defined]
        while not server.relay.counts.drops["full"]:
            for _ in range(64):
                plain.sendto(bytes(1200), peer.relayed[0])
            await asyncio.sleep(0.001)
        peer._transport.resume_reading()  # type: ignore[attr-defined]
        peer.client.check(asyncio.get_running_loop().time())
        peer.settle()
        await until(lambda: not peer.client._requests)
        assert not [event for event in peer.events if isinstance(event, Lost)]
        assert len([event for event in peer.events if isinstance(event, Received)]) > 100


async def test_a_connection_that_speaks_another_protocol_is_closed(serve: Serve) -> None:
    server = await serve()
    reader, writer = await asyncio.open_connection(server.stun.host, server.stun.port)
    writer.write(b"\x16\x03\x01\x02\x00\x01")
    assert await reader.read() == b""
    writer.close()


async def test_stun_is_answered_over_tcp_too(serve: Serve) -> None:
    server = await serve()
    reader, writer = await asyncio.open_connection(server.stun.host, server.stun.port)
    request = Message(Method.BINDING, Kind.REQUEST, bytes(12)).encode()
    writer.write(request[:7])
    await asyncio.sleep(0)
    writer.write(request[7:])
    answer = Message.decode(await reader.readexactly(40))
    assert answer.kind is Kind.SUCCESS
    writer.close()


async def test_one_host_has_so_many_connections(serve: Serve) -> None:
    server = await serve()
    pairs = [await asyncio.open_connection(server.stun.host, server.stun.port) for _ in range(65)]
    assert await pairs[-1][0].read() == b""
    for _, writer in pairs:
        writer.close()


async def test_without_a_relay_stun_is_answered_and_nothing_else(serve: Serve) -> None:
    server = await serve(serve=False)
    assert server.turn == ()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(server.stun.host, server.stun.port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect(tuple(server.stun))
        for method in (Method.ALLOCATE, Method.ALLOCATE, Method.BINDING):
            client.send(Message(method, Kind.REQUEST, bytes(12)).encode())
        answer = Message.decode(await asyncio.get_running_loop().sock_recv(client, 2048))
        assert answer.method is Method.BINDING


async def test_registered_peers_get_credentials_that_the_relay_takes_and_new_ones_in_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_credentials, "DEFAULT_LIFETIME", 2.0)
    server = await serve()
    async with raw_peer(server) as peer:
        await peer.register()
        registered = await peer.receive()
        assert isinstance(registered, Registered)
        renewed = await peer.receive()
        assert isinstance(renewed, Relays)
    first, second = registered.relays[0], renewed.relays[0]
    assert first.urls == second.urls
    assert first.username != second.username
    for relay in (first, second):
        async with relayed_peer(server, LongTerm(relay.username, relay.password)) as client:
            await client.event(Allocated)


@pytest.mark.parametrize("host", ["127.0.0.1", None], ids=["one address", "all addresses"])
async def test_who_was_told_the_nonce_with_its_registration_is_not_challenged(serve: Serve, host: str | None) -> None:
    server = await serve(host=host)
    url = f"ws://127.0.0.1:{server.url.rpartition(':')[2]}"
    async with connect(url, proxy=None) as socket:
        peer = await RawPeer(socket, Identity.generate()).registered()
    (relay,) = peer.relays
    account = LongTerm(relay.username, relay.password, relay.realm, relay.nonce)
    async with relayed_peer(Address("127.0.0.1", server.stun.port), account) as client:
        await client.event(Allocated)
    assert server.relay.turn.refused == {}


async def test_of_a_turn_server_elsewhere_only_credentials_are_served(serve: Serve) -> None:
    server = await serve(urls=("turn:relay.example.org",))
    async with raw_peer(server) as peer:
        await peer.register()
        registered = await peer.receive()
        assert isinstance(registered, Registered)
    (relay,) = registered.relays
    assert relay.urls == server.turn == ("turn:relay.example.org",)
    expires, _, name = relay.username.partition(":")
    assert name == str(peer.peer)
    assert LongTerm(relay.username, relay.password) == time_limited(SECRET, float(expires), name)
    assert not server.relay.relays
