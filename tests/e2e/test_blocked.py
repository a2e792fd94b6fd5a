"""Where UDP is blocked, and where all is but a proxy, a relay is reached over TLS."""

from __future__ import annotations

import shutil

import pytest

from lab.blocked import TO_PEER, TO_SERVER, Wall, measure, walled
from lab.ground import ENVIRONMENT, available

_COTURN = None if shutil.which("turnserver", path=ENVIRONMENT["PATH"]) else "coturn: install the package coturn"
UNAVAILABLE = available() or _COTURN
pytestmark = [pytest.mark.lab, pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))]

# What a machine with other things to do may add.
SLACK = 0.05


@pytest.mark.parametrize("wall", list(Wall), ids=lambda wall: wall.value)
def test_two_peers_are_connected_within_two_round_trips_more_than_tcp_and_tls_take(wall: Wall) -> None:
    times = measure(wall)
    print(times)
    assert times.kind == "relay"
    # An allocation is two requests (RFC 8656 §7.1); a connection is one message there and back, and one handshake.
    assert times.allocated <= times.bare + 2 * TO_SERVER + SLACK
    assert max(times.connected, times.again) <= times.bare + 2 * TO_PEER + SLACK


@pytest.mark.parametrize("wall", [Wall.BOTH, Wall.PROXY], ids=lambda wall: wall.value)
def test_tcp_and_tls_get_through_a_wall(wall: Wall) -> None:
    """Through a proxy, TCP is only as far as that; asking it takes a round trip more."""
    with walled(wall) as stage:
        taken = stage.bare()
    assert taken >= {Wall.BOTH: 2, Wall.PROXY: 3}[wall] * TO_SERVER
