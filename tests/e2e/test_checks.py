"""The direct path, found by either kind of checks behind kernel NATs."""

from __future__ import annotations

import pytest

from lab.checks import measure
from lab.ground import available
from quice import Checks

UNAVAILABLE = available()


@pytest.mark.lab
@pytest.mark.slow
@pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE))
@pytest.mark.parametrize("checks", list(Checks))
def test_the_direct_path_is_found_out_of_a_vpn(checks: Checks) -> None:
    connected, direct = measure(checks)
    # It is 300 ms to the peer and back over the VPN, 100 ms past it.
    assert connected >= {Checks.STUN: 0.1, Checks.QUIC: 0.3}[checks]
    assert connected <= direct < 2.0
