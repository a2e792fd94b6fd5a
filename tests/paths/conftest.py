"""Connections among fakes, whose paths are kept."""

from __future__ import annotations

import pytest

from quice.sim.simulation import Simulation
from tests.paths.kept import Kept


@pytest.fixture
async def kept(simulation: Simulation) -> Kept:
    """A connection that was made on a direct pair."""
    return Kept(simulation, "lan")


@pytest.fixture
async def relayed(simulation: Simulation) -> Kept:
    """A connection that was made over our relay."""
    return Kept(simulation, "our relay")
