"""The bench of connecting times connects everybody that it compares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.connect.lines import Ground
from bench.connect.play import Case, play
from bench.connect.programs import AIOICE, EAGER_PION, QUICE, Program
from bench.connect.report import Limits, table, verdicts
from bench.connect.servers import coturn_unavailable
from interop.programs import pion_unavailable
from lab.ground import available
from lab.link import IDEAL
from quice.sim.kinds import Nat

UNAVAILABLE = available() or coturn_unavailable()
lab = [
    pytest.mark.lab,
    pytest.mark.skipif(UNAVAILABLE is not None, reason=str(UNAVAILABLE)),
    # The first test with pion builds its program, with all that it stands on.
    pytest.mark.timeout(300),
]
