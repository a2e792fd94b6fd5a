"""The bench of relays sends what it compares through the relay, and nothing past it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.relay import RELAYS, Case, Way, carry
from bench.relayed import rendezvous, stream
from interop.relays import coturn_unavailable

NO_COTURN = coturn_unavailable()
RELAY_NAMES = [
    "quice",
    pytest.param("coturn", marks=pytest.mark.skipif(NO_COTURN is not None, reason=str(NO_COTURN))),
]


@pytest.mark.slow
@pytest.mark.parametrize("name", RELAY_NAMES)
@pytest.mark.parametrize("way", list(Way))
def test_a_stream_of_quic_goes_through_the_relay(name: str, way: Way, tmp_path: Path) -> None:
    with RELAYS[name](tmp_path) as relay, rendezvous() as url:
        sent = stream(relay, url, way, 0.3)
    # It raises for one that took another path.
    assert sent.gbit > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", RELAY_NAMES)
@pytest.mark.parametrize("way", list(Way))
@pytest.mark.parametrize("batched", [False, True])
def test_bare_udp_arrives_through_the_relay(name: str, way: Way, batched: bool, tmp_path: Path) -> None:
    with RELAYS[name](tmp_path) as relay:
        # More often than a user may have allocations at once.
        results = [carry(relay, Case(way, batched), 0.05, size=1000) for _ in range(12)]
    assert all(result.packets > 0 for result in results)
    assert results[0].gbit > 0


@pytest.mark.slow
def test_a_stream_without_a_relay_takes_none(tmp_path: Path) -> None:
    with RELAYS["quice"](tmp_path) as relay, rendezvous() as url:
        assert stream(relay, url, None, 0.1).gbit > 0
