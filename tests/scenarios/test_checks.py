"""What `docs/checks.md` says of the two implementations of the connectivity checks."""

from __future__ import annotations

import pytest

from quice import Checks
from quice.sim.kinds import Nat
from scenarios.checks import IMPOSSIBLE, PAIRS, run

POSSIBLE = [pair for pair in PAIRS if pair != IMPOSSIBLE]


@pytest.mark.parametrize("pair", POSSIBLE)
def test_both_end_on_the_direct_path(pair: tuple[Nat, Nat]) -> None:
    stun, quic = (run(checks, 1, pair, loss=0.0) for checks in Checks)
    assert stun.direct is not None
    assert quic.direct is not None
    assert quic.connected is not None
    # The signalling is nearer than the long way.
    assert stun.direct < 0.25
    # From the established connection on, twice the long way and twice the short one.
    assert quic.direct - quic.connected < 2 * 0.3 + 2 * 0.1
    assert (stun.in_all.stun.packets > 0, quic.in_all.stun.packets) == (True, 0)
    # Who sees both ways can tell by the connection id that they are one connection's.
    assert quic.in_all.linked > 0


@pytest.mark.parametrize("pair", POSSIBLE)
def test_path_challenges_lead_to_the_direct_path_when_packets_are_lost(pair: tuple[Nat, Nat]) -> None:
    for seed in range(1, 6):
        trial = run(Checks.QUIC, seed, pair, loss=0.05)
        assert trial.direct is not None
        assert trial.direct < 8.0, f"seed {seed}"


@pytest.mark.parametrize("checks", list(Checks))
def test_where_hole_punching_can_not_serve_both_stay_on_the_long_way(checks: Checks) -> None:
    trial = run(checks, 1, IMPOSSIBLE, loss=0.0)
    assert trial.connected is not None
    assert trial.direct is None
