"""Our TURN client and coturn's server, on loopback."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from interop.relays import PASSWORD, REALM, SECRET, USERNAME, Relay, coturn, coturn_unavailable
from interop.turning import Turning
from quice.stun.auth import LongTerm
from quice.turn import AddressFamilies, Allocated, Bound, Failed, Lost, PermissionRefused, Received, Redirected, Unbound
from quice.turn.credentials import time_limited
from tests.interop.peers import Peers, hear

UNAVAILABLE = coturn_unavailable()
pytestmark = pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))

USER = LongTerm(USERNAME, PASSWORD)
HOSTS = ["127.0.0.1", "::1"]


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """coturn as it is configured most often: one user, a name and a password."""
    with coturn(tmp_path) as running:
        yield running


@pytest.mark.parametrize("host", HOSTS)
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


def test_data_goes_both_ways_with_a_permission_alone(relay: Relay, peers: Peers) -> None:
    peer, address = peers("127.0.0.1")
    with Turning(relay.at(), USER) as turning:
        (relayed,) = turning.wait_for(Allocated).relayed
        turning.client.permit([address.host], time.monotonic())
        turning.client.send(b"hello", address, time.monotonic())
        turning.flush()
        assert hear(peer) == (b"hello", relayed)
        peer.sendto(b"back", tuple(relayed))
        assert turning.wait_for(Received) == Received(b"back", address)


def test_both_families_come_with_one_allocation_and_carry_data(relay: Relay, peers: Peers) -> None:
    with Turning(relay.at(), USER, families=AddressFamilies.BOTH) as turning:
        relayed = turning.wait_for(Allocated).relayed
        assert [address.ip.version for address in relayed] == [4, 6]
        for host, own in zip(HOSTS, relayed, strict=True):
            peer, address = peers(host)
            turning.client.bind(address, time.monotonic())
            turning.client.send(b"hello", address, time.monotonic())
            turning.flush()
            assert hear(peer) == (b"hello", own)
            peer.sendto(b"back", tuple(own))
            assert turning.wait_for(Received) == Received(b"back", address)


def test_ipv6_alone_is_given_over_ipv4(relay: Relay) -> None:
    with Turning(relay.at(), USER, families=AddressFamilies.IPV6) as turning:
        (relayed,) = turning.wait_for(Allocated).relayed
        assert relayed.ip.version == 6


def test_a_server_without_ipv6_gives_ipv4_to_who_asks_for_both(tmp_path: Path) -> None:
    with (
        coturn(tmp_path, relays=("127.0.0.1",)) as relay,
        Turning(relay.at(), USER, families=AddressFamilies.BOTH) as turning,
    ):
        (relayed,) = turning.wait_for(Allocated).relayed
        assert relayed.ip.version == 4


def test_a_peer_of_a_family_that_was_not_allocated_is_refused(relay: Relay, peers: Peers) -> None:
    _, address = peers("::1")
    with Turning(relay.at(), USER) as turning:
        turning.wait_for(Allocated)
        turning.client.bind(address, time.monotonic())
        assert turning.wait_for(Unbound).code == 443


def test_a_peer_that_the_server_forbids_is_told_from_those_it_allows(tmp_path: Path, peers: Peers) -> None:
    peer, address = peers("127.0.0.1")
    with (
        coturn(tmp_path, "--denied-peer-ip", "198.51.100.0-198.51.100.255") as relay,
        Turning(relay.at(), USER) as turning,
    ):
        (relayed,) = turning.wait_for(Allocated).relayed
        turning.client.permit(["198.51.100.9", address.host], time.monotonic())
        assert turning.wait_for(PermissionRefused).host == "198.51.100.9"
        turning.settle()
        peer.sendto(b"allowed", tuple(relayed))
        assert turning.wait_for(Received).data == b"allowed"


def test_closing_gives_the_relayed_port_back(relay: Relay) -> None:
    with Turning(relay.at(), USER) as turning:
        (relayed,) = turning.wait_for(Allocated).relayed
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, pytest.raises(OSError, match="in use"):
            taken.bind(tuple(relayed))
        turning.client.close(time.monotonic())
        turning.until(lambda: turning.client.is_over, "released")
    # It notices within a second that it was told so.
    relay.wait_for("delete: realm")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(tuple(relayed))


def test_with_the_nonce_of_another_client_an_allocation_is_given_too(relay: Relay) -> None:
    with Turning(relay.at(), USER) as first:
        first.wait_for(Allocated)
        with Turning(relay.at(), first.client.credentials) as second:
            second.wait_for(Allocated)


@pytest.mark.slow
def test_nonces_that_expire_are_replaced_unseen(tmp_path: Path, peers: Peers) -> None:
    peer, address = peers("127.0.0.1")
    with coturn(tmp_path, "--stale-nonce=1") as relay, Turning(relay.at(), USER) as turning:
        (relayed,) = turning.wait_for(Allocated).relayed
        nonces = set()
        turning.client.bind(address, time.monotonic())
        turning.wait_for(Bound)
        while len(nonces) < 4:
            nonces.add(turning.client.credentials.nonce)
            turning.settle()
        relay.wait_for("error 438", 3)
        assert not turning.told
        peer.sendto(b"still there", tuple(relayed))
        assert turning.wait_for(Received).data == b"still there"


@pytest.mark.parametrize("name", ["", "alice"])
def test_time_limited_credentials_are_accepted_until_they_end(tmp_path: Path, name: str) -> None:
    with coturn(tmp_path, "--use-auth-secret", f"--static-auth-secret={SECRET}") as relay:
        with Turning(relay.at(), time_limited(SECRET, time.time() + 60, name)) as turning:
            assert turning.wait_for(Allocated)
        for credentials in (time_limited(SECRET, time.time() - 60, name), time_limited("guessed", time.time() + 60)):
            with Turning(relay.at(), credentials) as turning:
                assert turning.wait_for(Failed).code == 401


def test_wrong_passwords_and_unknown_users_are_refused(relay: Relay) -> None:
    for credentials in (LongTerm(USERNAME, "guessed"), LongTerm("mallory", PASSWORD)):
        with Turning(relay.at(), credentials) as turning:
            assert turning.wait_for(Failed).code == 401


def test_a_server_without_passwords_is_served(tmp_path: Path) -> None:
    with coturn(tmp_path, "--no-auth") as relay:
        with Turning(relay.at(), USER) as turning:
            turning.wait_for(Allocated)
        relay.wait_for("lifetime=0")


def test_the_quota_of_a_user_is_a_486_until_an_allocation_is_released(tmp_path: Path) -> None:
    with coturn(tmp_path, "--user-quota=1") as relay:
        with Turning(relay.at(), USER) as first:
            first.wait_for(Allocated)
            with Turning(relay.at(), USER) as second:
                failed = second.wait_for(Failed)
                assert failed.code == 486
                assert "as many allocations" in failed.reason
        # It notices within a second that it was told so.
        relay.wait_for("delete: realm")
        with Turning(relay.at(), USER) as third:
            third.wait_for(Allocated)


def test_a_300_leads_to_the_other_server(tmp_path: Path, relay: Relay) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    with coturn(folder, "--alternate-server", f"127.0.0.1:{relay.port}") as first, Turning(first.at(), USER) as turning:
        assert turning.wait_for(Redirected).server == relay.at()
        turning.wait_for(Allocated)
        assert turning.client.server == relay.at()


def test_a_port_whose_allocation_was_forgotten_is_a_437_with_advice(relay: Relay) -> None:
    with Turning(relay.at(), USER) as first:
        first.wait_for(Allocated)
        port = first.client.source.port
        first.socket.close()
        with Turning(relay.at(), USER, local_port=port) as second:
            failed = second.wait_for(Failed)
            assert failed.code == 437
            assert "new port" in failed.reason
        first.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def restarted(folder: Path, port: int) -> AbstractContextManager[Relay]:
    """coturn again on the port that it had."""
    return coturn(folder, port=port)


def test_a_server_that_was_restarted_has_lost_the_allocation_and_says_so(tmp_path: Path) -> None:
    with coturn(tmp_path) as relay:
        turning = Turning(relay.at(), USER)
        turning.wait_for(Allocated)
    with turning, restarted(tmp_path, relay.port):
        turning.client.check(time.monotonic())
        assert "437" in turning.wait_for(Lost).reason


def test_a_server_that_was_killed_is_missed_within_four_seconds(tmp_path: Path) -> None:
    with coturn(tmp_path) as relay:
        turning = Turning(relay.at(), USER)
        turning.wait_for(Allocated)
    with turning:
        begun = time.monotonic()
        turning.client.check(begun)
        assert "does not answer" in turning.wait_for(Lost).reason
        assert time.monotonic() - begun < 4.5


def test_the_realm_that_was_learned_is_the_servers(relay: Relay) -> None:
    with Turning(relay.at(), USER) as turning:
        turning.wait_for(Allocated)
        assert turning.client.credentials.realm == REALM
