"""Our TURN client and pion's server, on loopback."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.programs import pion_unavailable
from interop.relays import PASSWORD, SECRET, USERNAME, Relay, pion_relay
from interop.streaming import streaming
from interop.turning import Turning
from quice.stun.auth import LongTerm
from quice.turn import AddressFamilies, Allocated, Bound, Failed, Lost, PermissionRefused, Received, time_limited
from tests.interop.peers import Peer, Peers, converse, hear

UNAVAILABLE = pion_unavailable()
pytestmark = [
    pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE)),
    # The first test builds the program, with all that it stands on.
    pytest.mark.timeout(300),
]

USER = LongTerm(USERNAME, PASSWORD)


@pytest.fixture
def relay() -> Iterator[Relay]:
    with pion_relay() as running:
        yield running


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_data_goes_both_ways_through_a_channel_that_is_not_waited_for(relay: Relay, peers: Peers, host: str) -> None:
    peer, address = peers("127.0.0.1")
    with Turning(relay.at(host), USER) as turning:
        (relayed,) = turning.wait_for(Allocated).relayed
        channel = turning.client.bind(address, time.monotonic())
        assert turning.client.send(b"behind the request", address, time.monotonic())
        turning.flush()
        assert hear(peer) == (b"behind the request", relayed)
        assert turning.wait_for(Bound) == Bound(address, channel)
        peer.sendto(b"back", tuple(relayed))
        assert turning.wait_for(Received) == Received(b"back", address)


def test_data_goes_both_ways_over_ipv6_with_a_permission_alone(relay: Relay, peers: Peers) -> None:
    peer, address = peers("::1")
    with Turning(relay.at(), USER, families=AddressFamilies.IPV6) as turning:
        (relayed,) = turning.wait_for(Allocated).relayed
        turning.client.permit([address.host], time.monotonic())
        turning.client.send(b"hello", address, time.monotonic())
        turning.flush()
        assert hear(peer) == (b"hello", relayed)
        peer.sendto(b"back", tuple(relayed))
        assert turning.wait_for(Received) == Received(b"back", address)


def test_a_server_that_knows_no_additional_family_gives_one(relay: Relay) -> None:
    with Turning(relay.at(), USER, families=AddressFamilies.BOTH) as turning:
        (relayed,) = turning.wait_for(Allocated).relayed
        assert relayed.ip.version == 4


def test_with_the_nonce_of_another_client_the_first_flight_carries_data(relay: Relay, peers: Peers) -> None:
    peer, address = peers("127.0.0.1")
    with Turning(relay.at(), USER) as first:
        first.wait_for(Allocated)
        with Turning(relay.at(), first.client.credentials, flush=False) as second:
            second.client.bind(address, time.monotonic())
            second.client.send(b"first flight", address, time.monotonic())
            second.flush()
            data, source = hear(peer)
            assert data == b"first flight"
            assert second.wait_for(Allocated).relayed == (source,)


def test_a_peer_that_the_server_forbids_is_told_from_those_it_allows(peers: Peers) -> None:
    peer, address = peers("127.0.0.1")
    with pion_relay("-deny", "198.51.100.9") as relay, Turning(relay.at(), USER) as turning:
        (relayed,) = turning.wait_for(Allocated).relayed
        turning.client.permit(["198.51.100.9", address.host], time.monotonic())
        assert turning.wait_for(PermissionRefused).host == "198.51.100.9"
        turning.settle()
        peer.sendto(b"allowed", tuple(relayed))
        assert turning.wait_for(Received).data == b"allowed"


def test_a_quota_is_a_486_until_an_allocation_is_released() -> None:
    with pion_relay("-quota", "1") as relay:
        with Turning(relay.at(), USER) as first:
            first.wait_for(Allocated)
            with Turning(relay.at(), USER) as second:
                assert second.wait_for(Failed).code == 486
        relay.wait_for("deleted")
        with Turning(relay.at(), USER) as third:
            third.wait_for(Allocated)


def test_time_limited_credentials_are_accepted_until_they_end() -> None:
    with pion_relay("-secret", SECRET) as relay:
        with Turning(relay.at(), time_limited(SECRET, time.time() + 60, "alice")) as turning:
            assert turning.wait_for(Allocated)
        for credentials in (
            time_limited(SECRET, time.time() - 60, "alice"),
            time_limited("guessed", time.time() + 60, "alice"),
        ):
            with Turning(relay.at(), credentials) as turning:
                assert turning.wait_for(Failed).code in (400, 401)


def test_a_server_that_was_restarted_is_lost_though_it_says_nothing_of_allocations_that_it_does_not_know() -> None:
    with pion_relay() as relay:
        turning = Turning(relay.at(), USER)
        turning.wait_for(Allocated)
    with turning, pion_relay(port=relay.port):
        turning.client.check(time.monotonic())
        assert turning.wait_for(Lost)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_data_goes_both_ways_over_tcp(peer: Peer, host: str) -> None:
    with pion_relay() as relay:
        async with streaming(host, relay.port, USER) as client:
            await converse(client, peer)
        await asyncio.to_thread(relay.wait_for, "deleted")


async def test_data_goes_both_ways_over_tls(peer: Peer, trust: ssl.SSLContext, tmp_path: Path) -> None:
    with pion_relay("-cert", str(tmp_path / "cert.pem"), "-key", str(tmp_path / "key.pem")) as relay:
        async with streaming("127.0.0.1", relay.port, USER, context=trust) as client:
            await converse(client, peer)
