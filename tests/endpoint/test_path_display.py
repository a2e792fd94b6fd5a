"""What a path is shown as, whatever addresses the engine has for its ends."""

from __future__ import annotations

import dataclasses

import pytest

from quice import Address, Path, PathKind
from quice.path import Places, carrying
from tests.endpoint.conftest import Pair

SYNTHETIC = Address("fd71:7569:6365::1", 9)
RELAYED = Address("203.0.113.9", 49160)
PLACES = Places(
    relayed=lambda local, remote: RELAYED if local == SYNTHETIC else None,
    is_relayed=lambda remote: remote == RELAYED,
)


def shown(local: Address | None, remote: Address, places: Places = PLACES) -> Path:
    numbers = dict.fromkeys(("sent_packets", "lost_packets", "congestion_window", "sent_bytes", "received_bytes"), 0)
    return places.path(
        {"id": 0, "status": "available", "validated": True, "rtt": 0.1, "mtu": 1200}
        | numbers
        | {"local": local and tuple(local), "remote": tuple(remote)}
    )


def test_a_path_through_a_relay_of_ours_shows_the_address_that_the_relay_has_for_us() -> None:
    path = shown(SYNTHETIC, Address("198.51.100.1", 4433))
    assert (path.kind, path.local, path.remote) == (PathKind.RELAY, RELAYED, Address("198.51.100.1", 4433))


def test_a_path_through_a_relay_that_is_gone_shows_no_address_of_ours() -> None:
    path = shown(Address("fd71:7569:6365::2", 0), Address("198.51.100.1", 4433))
    assert (path.kind, path.local) == (PathKind.RELAY, None)


def test_a_path_to_a_relay_of_the_peers_is_a_relayed_one_too() -> None:
    path = shown(Address("192.168.1.2", 4433), RELAYED)
    assert (path.kind, path.local, path.remote) == (PathKind.RELAY, Address("192.168.1.2", 4433), RELAYED)


@pytest.mark.parametrize(
    ("remote", "kind"), [(Address("192.168.1.3", 1), PathKind.LAN), (Address("198.51.100.1", 1), PathKind.DIRECT)]
)
def test_a_path_without_a_relay_is_known_by_the_peers_address(remote: Address, kind: PathKind) -> None:
    assert shown(Address("192.168.1.2", 4433), remote).kind is kind
    assert shown(None, remote).kind is kind


def test_data_goes_over_the_available_path_and_over_a_backup_only_when_there_is_no_other() -> None:
    path = shown(None, RELAYED)
    first = dataclasses.replace(path, id=1, status="backup")
    second = dataclasses.replace(path, id=2)
    unproven = dataclasses.replace(path, id=0, validated=False)
    assert carrying([unproven, first, second]) is second
    assert carrying([unproven, first]) is first
    assert carrying([unproven]) is None


async def test_a_connection_shows_its_paths_by_what_it_knows_of_places(pair: Pair) -> None:
    path = pair.near.path
    assert path is not None
    assert path.kind is PathKind.LAN
    assert path.loss == path.lost_packets / path.sent_packets
    pair.near._places = Places(is_relayed=lambda remote: remote == path.remote)
    relayed = pair.near.path
    assert relayed is not None
    assert (relayed.kind, relayed.local, relayed.remote) == (PathKind.RELAY, path.local, path.remote)
    pair.near.close()
    await pair.near._drained.wait()
    assert pair.near.path is None
