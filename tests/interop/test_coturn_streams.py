"""Our TURN client and coturn's server over TCP and TLS, and through a proxy, on loopback."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.relays import PASSWORD, USERNAME, Relay, coturn, coturn_unavailable
from interop.streaming import streaming
from quice.errors import RelayUnreachableError
from quice.stun.auth import LongTerm
from quice.turn import AddressFamilies, Allocated
from tests.interop.peers import NAME, Peer, converse
from tests.turn.http_proxy import serving

UNAVAILABLE = coturn_unavailable()
pytestmark = pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))

USER = LongTerm(USERNAME, PASSWORD)


@pytest.fixture
def tcp_relay(tmp_path: Path) -> Iterator[Relay]:
    with coturn(tmp_path) as running:
        yield running


@pytest.fixture
def tls_relay(tmp_path: Path, trust: ssl.SSLContext) -> Iterator[Relay]:
    with coturn(tmp_path, tls=True) as running:
        yield running


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_data_goes_both_ways_over_tcp(tcp_relay: Relay, peer: Peer, host: str) -> None:
    async with streaming(host, tcp_relay.port, USER) as client:
        await converse(client, peer)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_data_goes_both_ways_over_tls(tls_relay: Relay, trust: ssl.SSLContext, peer: Peer, host: str) -> None:
    async with streaming(host, tls_relay.port, USER, context=trust) as client:
        await converse(client, peer)


async def test_a_relay_whose_certificate_is_not_trusted_is_not_used(tls_relay: Relay, trust: ssl.SSLContext) -> None:
    with pytest.raises(RelayUnreachableError, match="certificate is not accepted"):
        async with streaming("127.0.0.1", tls_relay.port, USER, context=ssl.create_default_context()):
            pytest.fail("it was")


async def test_both_families_come_over_tcp(tcp_relay: Relay) -> None:
    async with streaming("127.0.0.1", tcp_relay.port, USER, families=AddressFamilies.BOTH) as client:
        assert [address.ip.version for address in (await client.wait_for(Allocated)).relayed] == [4, 6]


async def test_a_proxy_carries_turn_over_tls(
    tls_relay: Relay, trust: ssl.SSLContext, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving({f"{NAME}:443": ("127.0.0.1", tls_relay.port)}, "alice:secret") as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://alice:secret@127.0.0.1:{proxy.port}")
        async with streaming(NAME, 443, USER, context=trust) as client:
            await converse(client, peer)
        assert proxy.asked == [f"CONNECT {NAME}:443 HTTP/1.1"]


async def test_the_end_of_the_stream_is_the_end_of_the_allocation(tcp_relay: Relay) -> None:
    async with streaming("127.0.0.1", tcp_relay.port, USER) as client:
        await client.wait_for(Allocated)
        tcp_relay.process.kill()
        await client.until(lambda: client.ended)


async def test_closing_releases_the_allocation(tcp_relay: Relay) -> None:
    async with streaming("127.0.0.1", tcp_relay.port, USER) as client:
        await client.wait_for(Allocated)
        await client.close()
    await asyncio.to_thread(tcp_relay.wait_for, "lifetime=0")


async def test_a_300_over_tcp_leads_to_a_stream_to_the_other_server(
    tcp_relay: Relay, tmp_path: Path, peer: Peer
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    with coturn(folder, "--alternate-server", f"127.0.0.1:{tcp_relay.port}") as first:
        async with streaming("127.0.0.1", first.port, USER) as client:
            await converse(client, peer)
            assert client.client.server == tcp_relay.at()


async def test_a_300_over_tls_leads_to_a_stream_to_the_other_server(
    tls_relay: Relay, trust: ssl.SSLContext, tmp_path: Path, peer: Peer
) -> None:
    with coturn(tmp_path, "--tls-alternate-server", f"127.0.0.1:{tls_relay.port}", tls=True) as first:
        async with streaming("127.0.0.1", first.port, USER, context=trust) as client:
            await converse(client, peer)
            assert client.client.server == tls_relay.at()
